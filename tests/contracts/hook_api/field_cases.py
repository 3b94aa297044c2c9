"""What every route answers to fields, names, bodies and tokens that are wrong."""

from typing import Any

from tests.contracts.hook_api.case import BAD, LIMIT, SECRETS, VARS, Case, Step, delete, get, post, put
from tests.contracts.hook_api.world import DEAD, NOBODY, STRANGER

LARGE = "x" * (1024 * 1024 + 1)
NOT_TEXT = 7

FIELDS_OF: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/kv"): {"namespace": VARS, "key": "greeting"},
    ("PUT", "/kv"): {"namespace": VARS, "key": "k", "value": "v"},
    ("DELETE", "/kv"): {"namespace": VARS, "key": "k"},
    ("GET", "/kv/keys"): {},
    ("PUT", "/kv/secret"): {"namespace": SECRETS, "key": "k", "value": "v"},
    ("DELETE", "/kv/secret"): {"namespace": SECRETS, "key": "k"},
    ("GET", "/demands"): {},
    ("POST", "/semaphore/acquire"): {"name": "n"},
    ("POST", "/semaphore/release"): {"name": "n"},
    ("GET", "/semaphore/status"): {"name": "n"},
    ("POST", "/ssh"): {"worker": "10.0.0.1", "command": "true"},
    ("POST", "/http"): {"method": "GET", "url": "http://10.0.0.1:8080/ok"},
}
"""Every route, with fields that are right."""

WRONG: tuple[tuple[str, str, str, Any], ...] = (
    ("PUT", "/kv", "value", NOT_TEXT),
    ("PUT", "/kv", "value", None),
    ("PUT", "/kv", "ttl", "soon"),
    ("PUT", "/kv", "ttl", -1),
    ("PUT", "/kv", "if_version", 0),
    ("PUT", "/kv", "if_absent", "yes"),
    ("PUT", "/kv", "namespace", ["vars/job/api"]),
    ("PUT", "/kv/secret", "value", {"a": 1}),
    ("GET", "/kv", "version", "latest"),
    ("POST", "/semaphore/acquire", "capacity", 0),
    ("POST", "/semaphore/acquire", "capacity", 65),
    ("POST", "/semaphore/acquire", "timeout_seconds", 3601),
    ("POST", "/semaphore/acquire", "timeout_seconds", 1.5),
    ("POST", "/ssh", "timeout_seconds", 3601),
    ("POST", "/ssh", "command", 5),
    ("POST", "/ssh", "check_host", "no"),
    ("POST", "/http", "timeout_seconds", 121),
    ("POST", "/http", "headers", "accept: all"),
    ("POST", "/http", "method", ""),
    ("POST", "/http", "method", "GET /"),
    ("POST", "/http", "method", "CONNECT"),
    ("POST", "/http", "method", "connect"),
)
"""Fields of the wrong type or out of range."""


def wrong_field_cases() -> tuple[Case, ...]:
    """Every route refuses missing, unknown and wrong fields."""
    missing = [
        Case(
            name=f"{method} {path} without {name}",
            steps=(Step(method=method, path=path, fields={n: v for n, v in fields.items() if n != name}, **BAD),),
        )
        for (method, path), fields in FIELDS_OF.items()
        for name in fields
    ]
    unknown = [
        Case(
            name=f"{method} {path} with an unknown field",
            steps=(Step(method=method, path=path, fields=fields | {"x": "y"}, **BAD),),
        )
        for (method, path), fields in FIELDS_OF.items()
    ]
    wrong = [
        Case(
            name=f"{method} {path} with {name} = {value!r}",
            steps=(Step(method=method, path=path, fields=FIELDS_OF[(method, path)] | {name: value}, **BAD),),
        )
        for method, path, name, value in WRONG
    ]
    return (*missing, *unknown, *wrong)


NAME_CASES: tuple[Case, ...] = (
    Case(name="an empty key is refused", steps=(put("", "v", **BAD), get(VARS, "", status=400))),
    Case(
        name="a namespace with an empty part is refused",
        steps=tuple(
            step
            for namespace in ("vars/job/api/", "/vars/job/api", "vars//job/api", "/")
            for step in (
                get(namespace, "greeting", status=400),
                put("k", "v", namespace=namespace, **BAD),
                delete("k", namespace=namespace, **BAD),
                put("k", "v", namespace=namespace, path="/kv/secret", **BAD),
                Step(method="GET", path="/kv/keys", fields={"namespace": namespace}, **BAD),
            )
        ),
    ),
    Case(name="a key of 513 characters is refused", steps=(put("k" * 513, "v", **LIMIT),)),
    Case(name="a key of 512 characters is kept", steps=(put("k" * 512, "v"),)),
    Case(name="a key with a control character is refused", steps=(put("a\nb", "v", **BAD),)),
    Case(name="a value over 1 MiB is refused", steps=(put("{k}", LARGE, **LIMIT),)),
    Case(name="a value of 1 MiB is kept", steps=(put("{k}", LARGE[1:]),)),
    Case(
        name="a semaphore's name of 129 characters is refused", steps=(post("/semaphore/acquire", {"name": "n" * 129}, **LIMIT),)
    ),
    Case(
        name="a body over 2 MiB is refused",
        steps=(put("{k}", LARGE * 2, status=413, code="body_too_large"),),
    ),
    Case(
        name="a route that is not there is not found",
        steps=(Step(method="GET", path="/kv/nothing", status=404, code="route_not_found"),),
    ),
    Case(
        name="a method that a route does not have is not allowed",
        steps=(post("/kv", FIELDS_OF[("PUT", "/kv")], status=405, code="method_not_allowed"),),
    ),
)


def token_cases() -> tuple[Case, ...]:
    """No route answers without a live token."""
    return tuple(
        Case(
            name=f"{method} {path} by {caller}",
            steps=(Step(caller=caller, method=method, path=path, fields=fields, status=401, code="unauthenticated"),),
        )
        for caller in (DEAD, STRANGER, NOBODY)
        for (method, path), fields in FIELDS_OF.items()
    )
