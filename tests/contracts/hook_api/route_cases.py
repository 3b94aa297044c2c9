"""What each route answers when all is well, and when the store says no."""

from tests.contracts.hook_api.case import BAD, DENIED, LOST, SECRETS, VARS, Case, Step, delete, get, post, put

ROUTE_CASES: tuple[Case, ...] = (
    Case(
        name="a written value is read back with its version",
        steps=(
            put("{k}", "one", body={"version": 1}),
            get(VARS, "{k}", body={"namespace": VARS, "key": "{k}", "value": "one", "version": 1}),
        ),
    ),
    Case(
        name="an equal value makes no new version",
        steps=(put("{k}", "same", body={"version": 1}), put("{k}", "same", body={"version": 1})),
    ),
    Case(
        name="an empty value is an empty string",
        steps=(put("{k}", "", body={"version": 1}), get(VARS, "{k}", body={"value": "", "version": 1})),
    ),
    Case(
        name="text of any language and shape comes back as it was",
        steps=(
            put("{k}", 'grüße 世界 🎉 "quoted" \\ \n\t&=?#%/'),
            get(VARS, "{k}", body={"value": 'grüße 世界 🎉 "quoted" \\ \n\t&=?#%/'}),
        ),
    ),
    Case(
        name="keys may hold every printable character",
        steps=(put("{k} a/b?c=d&e#f%20+ü", "odd"), get(VARS, "{k} a/b?c=d&e#f%20+ü", body={"value": "odd"})),
    ),
    Case(
        name="an older version can be read",
        steps=(
            put("{k}", "one"),
            put("{k}", "two", body={"version": 2}),
            get(VARS, "{k}", fields={"version": 1}, body={"value": "one", "version": 1}),
            get(VARS, "{k}", fields={"version": 9}, status=404),
        ),
    ),
    Case(
        name="if_version writes only over that version",
        steps=(
            put("{k}", "one"),
            put("{k}", "two", fields={"if_version": 1}, body={"version": 2}),
            put("{k}", "three", fields={"if_version": 1}, body={"details": {"current_version": 2}}, **LOST),
            get(VARS, "{k}", body={"value": "two"}),
        ),
    ),
    Case(
        name="if_absent writes only where nothing is",
        steps=(
            put("{k}", "one", fields={"if_absent": True}, body={"version": 1}),
            put("{k}", "two", fields={"if_absent": True}, body={"details": {"current_version": 1}}, **LOST),
            delete("{k}"),
            put("{k}", "three", fields={"if_absent": True}, body={"version": 3}),
        ),
    ),
    Case(
        name="if_absent and if_version contradict each other",
        steps=(put("{k}", "x", fields={"if_absent": True, "if_version": 1}, **BAD),),
    ),
    Case(
        name="a deleted value is absent, and its tombstone is a version",
        steps=(
            put("{k}", "one"),
            delete("{k}", body={"version": 2}),
            get(VARS, "{k}", status=404),
            delete("{k}", status=404, code="not_found"),
        ),
    ),
    Case(name="a value with a lifetime is there before it ends", steps=(put("{k}", "x", fields={"ttl": 60}), get(VARS, "{k}"))),
    Case(name="a key that never was is not found", steps=(get(VARS, "{k}", status=404),)),
    Case(
        name="a secret is written by its own route and read in clear",
        steps=(
            put("{k}", "hush", namespace=SECRETS, path="/kv/secret", body={"version": 1}),
            get(SECRETS, "{k}", body={"value": "hush", "version": 1}),
            put("{k}", "hush", namespace=SECRETS, path="/kv/secret", body={"version": 1}),
            put("{k}", "else", namespace=SECRETS, path="/kv/secret", fields={"if_version": 7}, **LOST),
            put("{k}", "else", namespace=SECRETS, path="/kv/secret", fields={"if_absent": True}, **LOST),
            delete("{k}", namespace=SECRETS, path="/kv/secret", body={"version": 2}),
            get(SECRETS, "{k}", status=404),
            delete("{k}", namespace=SECRETS, path="/kv/secret", status=404, code="not_found"),
        ),
    ),
    Case(
        name="an empty secret is an empty string",
        steps=(
            put("{k}", "", namespace=SECRETS, path="/kv/secret"),
            get(SECRETS, "{k}", body={"value": ""}),
        ),
    ),
    Case(
        name="the plain route refuses secrets and names the right one",
        steps=(
            put("{k}", "hush", namespace=SECRETS, body={"message": "/kv/secret"}, **DENIED),
            delete("token", namespace=SECRETS, body={"message": "/kv/secret"}, **DENIED),
        ),
    ),
    Case(
        name="keys are listed by namespace",
        steps=(
            Step(
                method="GET",
                path="/kv/keys",
                fields={"namespace": "vars/bucket"},
                body={"namespaces": {"vars/bucket": ["region"]}},
            ),
            Step(caller="web", method="GET", path="/kv/keys", body={"namespaces": {"vars/job/web": ["theme"]}}),
            Step(caller="web", method="GET", path="/kv/keys", body={"namespaces": {"secrets/job/web": ["cookie"]}}),
            Step(method="GET", path="/kv/keys", fields={"namespace": "vars/job/web"}, **DENIED),
        ),
    ),
    Case(
        name="a hook sees who demands it",
        steps=(
            Step(
                caller="database",
                method="GET",
                path="/demands",
                body=[{"job": "api", "hook": "hook_setup", "demand_config": {"min_version": "1.0.0"}}],
            ),
            Step(caller="web", method="GET", path="/demands", body=[]),
        ),
    ),
    Case(
        name="a slot is granted, shown, and given back",
        steps=(
            Step(
                method="GET",
                path="/semaphore/status",
                fields={"name": "{k}"},
                body={"name": "{k}", "capacity": 1, "holders": [], "waiting": 0, "available": 1},
            ),
            post("/semaphore/acquire", {"name": "{k}"}, body={"name": "{k}", "capacity": 1, "acquired": True}),
            Step(method="GET", path="/semaphore/status", fields={"name": "{k}"}, body={"waiting": 0, "available": 0}),
            post("/semaphore/release", {"name": "{k}"}, body={}),
            Step(method="GET", path="/semaphore/status", fields={"name": "{k}"}, body={"holders": [], "available": 1}),
        ),
    ),
    Case(
        name="a holder that asks again keeps its one slot",
        steps=(
            post("/semaphore/acquire", {"name": "{k}", "capacity": 2}),
            post("/semaphore/acquire", {"name": "{k}", "capacity": 2}),
            Step(method="GET", path="/semaphore/status", fields={"name": "{k}"}, body={"capacity": 2, "available": 1}),
            post("/semaphore/release", {"name": "{k}"}),
            post("/semaphore/release", {"name": "{k}"}, status=409, code="semaphore_not_held"),
        ),
    ),
    Case(
        name="a slot that another allocation holds is not granted in time",
        steps=(
            post("/semaphore/acquire", {"name": "{k}"}),
            post(
                "/semaphore/acquire",
                {"name": "{k}", "timeout_seconds": 1},
                caller="api_peer",
                status=408,
                code="semaphore_timeout",
            ),
            Step(method="GET", path="/semaphore/status", fields={"name": "{k}"}, body={"waiting": 0, "available": 0}),
            post("/semaphore/release", {"name": "{k}"}),
        ),
    ),
    Case(
        name="a semaphore in use has one capacity",
        steps=(
            post("/semaphore/acquire", {"name": "{k}"}),
            post(
                "/semaphore/acquire",
                {"name": "{k}", "capacity": 2},
                caller="api_peer",
                status=409,
                code="semaphore_capacity",
                body={"details": {"capacity": 1}},
            ),
            post("/semaphore/release", {"name": "{k}"}),
        ),
    ),
    Case(
        name="semaphores of the same name on other events and jobs are others",
        steps=(
            post("/semaphore/acquire", {"name": "{k}"}),
            post("/semaphore/acquire", {"name": "{k}", "timeout_seconds": 5}, caller="api_post_deploy"),
            post("/semaphore/acquire", {"name": "{k}", "timeout_seconds": 5}, caller="web"),
            post("/semaphore/release", {"name": "{k}"}),
            post("/semaphore/release", {"name": "{k}"}, caller="api_post_deploy"),
            post("/semaphore/release", {"name": "{k}"}, caller="web"),
        ),
    ),
)

WORKER_CASES: tuple[Case, ...] = (
    Case(
        name="a command on a worker answers with its exit code and output",
        steps=(
            post(
                "/ssh", {"worker": "10.0.0.1", "command": "true"}, body={"exit_code": 0, "stdout": "fine\n", "timed_out": False}
            ),
            post("/ssh", {"worker": "10.0.0.1", "command": "false"}, body={"exit_code": 3, "stderr": "broken\n"}),
            post("/ssh", {"worker": "10.0.0.1", "command": "sleep 9", "timeout_seconds": 1}, body={"timed_out": True}),
        ),
    ),
    Case(
        name="workers of other jobs are out of reach",
        steps=(
            post("/ssh", {"worker": "10.0.0.3", "command": "true"}, **DENIED),
            post("/ssh", {"worker": "10.0.0.2", "command": "true"}, caller="web", **DENIED),
            post("/http", {"method": "GET", "url": "http://10.0.0.3:8080/ok"}, **DENIED),
        ),
    ),
    Case(
        name="a worker that cannot be reached is a bad gateway",
        steps=(
            post("/ssh", {"worker": "10.0.0.2", "command": "true"}, status=502, code="worker_unreachable"),
            post("/http", {"method": "GET", "url": "http://10.0.0.2:8080/ok"}, status=502, code="worker_unreachable"),
        ),
    ),
    Case(
        name="an HTTP answer of a worker is passed on whatever its status",
        steps=(
            post(
                "/http",
                {"method": "GET", "url": "http://10.0.0.1:8080/ok", "headers": {"accept": "text/plain"}},
                body={"status_code": 200, "headers": {"x-served-by": "api"}, "body": "ok", "truncated": False},
            ),
            post(
                "/http",
                {"method": "POST", "url": "http://10.0.0.1:8080/teapot", "body": "tea", "timeout_seconds": 5},
                body={"status_code": 418, "body": "short and stout"},
            ),
        ),
    ),
)
