"""The SDK's functions by name, and what each gives: the same in Python and TypeScript."""

from typing import Any

from tests.contracts.hook_api.case import FunctionCase

VARS = "vars/job/api"


def gives(function: str, value: Any, *args: Any, name: str = "", caller: str = "api", **options: Any) -> FunctionCase:
    """Expect a plain value."""
    return FunctionCase(
        name=name or function, caller=caller, function=function, args=args, options=options, gives={"value": value}
    )


def answers(
    function: str, status: int, *args: Any, json: Any = None, name: str = "", caller: str = "api", **options: Any
) -> FunctionCase:
    """Expect a response."""
    given = {"status": status} | ({} if json is None else {"json": json})
    return FunctionCase(name=name or function, caller=caller, function=function, args=args, options=options, gives=given)


def raises(
    function: str, error: str, *args: Any, name: str, caller: str = "api", more: Any = None, **options: Any
) -> FunctionCase:
    """Expect an error."""
    given = {"error": error} | (more or {})
    return FunctionCase(name=name, caller=caller, function=function, args=args, options=options, gives=given)


MAKE = (
    "env JOB='api' CURRENT_VERSION='1.0.0' NEW_VERSION='1.1.0' ALLOCATION_IP='10.0.0.1' ALLOCATION_INDEX='0' "
    "make -s -C '/opt/worker/b/jobs/api' -- 'reload'"
)

CONTEXT_CASES: tuple[FunctionCase, ...] = (
    gives("allocation_ip", "10.0.0.1"),
    gives("allocation_index", 0),
    gives("job_name", "api"),
    gives("hook_name", "hook_setup"),
    gives("hook_event", "pre_deploy"),
    gives("current_version", "1.0.0"),
    gives("new_version", "1.1.0"),
    gives("is_allocation_disabled", False),
    gives("is_one_shot", True),
    gives("is_one_shot", False, name="only the first allocation of the batch is one-shot", caller="api_peer"),
    gives("batch_index", 0),
    gives("batch_count", 2),
    gives("batch_allocations", ["10.0.0.1"]),
    gives("rollout_order", ["10.0.0.1", "10.0.0.2"]),
    gives("new_allocations", []),
    gives("updated_allocations", []),
    gives("get_allocation_ip", "10.0.0.1"),
    gives("get_job", "api"),
    gives("get_event", "pre_deploy"),
)

STORE_CASES: tuple[FunctionCase, ...] = (
    gives("get_kv_value", "hello", VARS, "greeting"),
    gives("get_kv_value", "", VARS, "empty", name="an empty value is no missing value"),
    gives("get_kv_value", "fallback", VARS, "{k}", "fallback", name="a missing value gives the default"),
    gives("get_kv_value", None, VARS, "{k}", None, name="a missing value gives the default even when that is nothing"),
    raises("get_kv_value", "KeyError", VARS, "{k}", name="a missing value without a default is a KeyError"),
    raises(
        "get_kv_value",
        "MaandError",
        "vars/job/web",
        "theme",
        "fallback",
        name="a value that may not be read is an error, default or not",
        more={"status": 403, "code": "permission_denied"},
    ),
    answers("get_store_value", 200, VARS, "greeting", json={"value": "hello"}),
    answers("kv_get", 404, VARS, "{k}"),
    answers("put_job_variable", 200, "{k}", "one", json={"version": 1}),
    answers("put_job_variable", 200, "{k}", "x", ttl=60, name="put_job_variable with a lifetime"),
    answers("put_job_variable", 200, "{k}", "x", if_absent=True, name="put_job_variable if absent", json={"version": 1}),
    answers(
        "put_job_variable",
        409,
        "{k}",
        "x",
        if_version=3,
        name="put_job_variable over a version that is not there",
        json={"error": {"code": "kv_precondition_lost", "details": {"current_version": 0}}},
    ),
    answers("put_job_variable", 403, "{k}", "x", name="put_job_variable in a health check", caller="api_health"),
    answers("kv_put", 200, "{k}", "one"),
    answers("put_job_secret", 200, "{k}", "hush", json={"version": 1}),
    answers("kv_put_secret", 200, "{k}", "hush"),
    answers("delete_job_variable", 404, "{k}"),
    answers("delete_job_secret", 404, "{k}"),
    answers("list_job_keys", 200, "vars/bucket", json={"namespaces": {"vars/bucket": ["region"]}}),
    answers(
        "list_job_keys", 200, name="list_job_keys of the job", caller="web", json={"namespaces": {"vars/job/web": ["theme"]}}
    ),
    answers("put_rollout_order", 200, ["10.0.0.2", "10.0.0.1"], name="put_rollout_order as a list"),
    answers("get_rollout_order", 200, json={"key": "rollout_order", "value": "10.0.0.2,10.0.0.1"}),
    answers("put_rollout_order", 200, "10.0.0.1,10.0.0.2", name="put_rollout_order as text"),
    answers("put_rollout_order", 400, ["10.0.0.9"], name="put_rollout_order of strangers"),
    answers("list_hook_demands", 200, caller="database"),
    answers("get_demands", 200, caller="database"),
)

SEMAPHORE_CASES: tuple[FunctionCase, ...] = (
    answers("acquire_semaphore", 200, "{k}", json={"acquired": True, "capacity": 1}),
    answers(
        "acquire_semaphore",
        200,
        "{k}",
        capacity=3,
        timeout_seconds=5,
        name="acquire_semaphore with options",
        json={"capacity": 3},
    ),
    answers("release_semaphore", 409, "{k}"),
    answers("semaphore_status", 200, "{k}", json={"capacity": 1, "holders": [], "available": 1}),
    gives("with_semaphore", [True, 0], "{k}"),
    gives("with_semaphore", [True, 1], "{k}", name="with_semaphore of two slots", capacity=2),
)

WORKER_FUNCTION_CASES: tuple[FunctionCase, ...] = (
    FunctionCase(
        name="run_ssh",
        function="run_ssh",
        args=("10.0.0.1", "true"),
        gives={"returncode": 0, "stdout": "fine\n", "ok": True},
    ),
    FunctionCase(
        name="run_ssh of a command that fails, unchecked",
        function="run_ssh",
        args=("10.0.0.1", "false"),
        options={"check": False, "timeout": 5, "stdin": "in"},
        gives={"returncode": 3, "ok": False},
    ),
    raises(
        "run_ssh",
        "SSHError",
        "10.0.0.1",
        "false",
        name="run_ssh of a command that fails",
        more={"message": "`false` on 10.0.0.1 failed with exit code 3:\nbroken"},
    ),
    raises("run_ssh", "SSHError", "10.0.0.1", "sleep 9", name="run_ssh of a command that takes too long"),
    raises(
        "run_ssh", "MaandError", "10.0.0.2", "true", name="run_ssh on a worker out of reach", check=False, more={"status": 502}
    ),
    raises("run_ssh", "MaandError", "10.0.0.3", "true", name="run_ssh on a stranger", more={"status": 403}),
    FunctionCase(
        name="run_make_target",
        function="run_make_target",
        args=("reload",),
        gives={"stdout": "reloaded\n", "ok": True, "command": MAKE},
    ),
    *(
        raises("run_make_target", "MaandError", target, name=f"run_make_target {target!r}", more={"code": "invalid_argument"})
        for target in ("--eval=$(shell id)", "-n", "SHELL=/tmp/x", "")
    ),
    gives(
        "http_request",
        {"status_code": 200, "headers": {"x-served-by": "api"}, "body": "ok", "truncated": False},
        "GET",
        "http://10.0.0.1:8080/ok",
    ),
    gives(
        "http_request",
        {"status_code": 418, "headers": {}, "body": "short and stout", "truncated": False},
        "POST",
        "http://10.0.0.1:8080/teapot",
        name="http_request with everything",
        headers={"accept": "*/*"},
        body="tea",
        timeout_seconds=5,
        tls={"insecure_skip_verify": True},
    ),
    raises(
        "http_request",
        "MaandError",
        "GET",
        "http://10.0.0.3:8080/ok",
        name="http_request to a stranger",
        more={"status": 403},
    ),
)

FUNCTION_CASES: tuple[FunctionCase, ...] = (*CONTEXT_CASES, *STORE_CASES, *SEMAPHORE_CASES)
"""Functions that need the catalog at most."""
