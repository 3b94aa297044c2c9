"""Who may read and write what: the specification's table for a hook invocation, for the in-memory gateway."""

from maand_hook_sdk.memory_identity import ApiError, Identity, check_namespace

ROLLOUT_ORDER = "rollout_order"
ROLLOUT_ORDER_EVENTS = frozenset({"pre_deploy", "cli"})
READ_ONLY_EVENT = "health_check"


def check_read(identity: Identity, namespace: str, key: str = "") -> None:
    """Let through what a hook may read: everybody's, its own, its peers' without private keys, and its demanded jobs'."""
    check_namespace(namespace)
    if namespace in own_namespaces(identity) or namespace in demanded_namespaces(identity):
        return
    is_peer = namespace.startswith(f"maand/job/{identity.job}/worker/") and namespace.count("/") == 4
    if not is_peer or (key.startswith("certs/") and key.endswith(".key")):
        raise make_denial(identity, "read", namespace)


def check_write(identity: Identity, namespace: str, key: str, value: str | None) -> None:
    """Let through what a hook may write or (value None) delete with the plain call."""
    check_namespace(namespace)
    if namespace == f"secrets/job/{identity.job}":
        raise ApiError(403, "permission_denied", f"{namespace} holds secrets; use PUT and DELETE /kv/secret, put_job_secret")
    if namespace == f"maand/job/{identity.job}" and key == ROLLOUT_ORDER and value is not None:
        check_rollout_order(identity, namespace, value)
    elif namespace != f"vars/job/{identity.job}":
        raise make_denial(identity, "write", namespace)
    check_event(identity, namespace)


def check_rollout_order(identity: Identity, namespace: str, value: str) -> None:
    """Let a rollout order through only on two events, and only a permutation of the job's workers."""
    if identity.event not in ROLLOUT_ORDER_EVENTS:
        raise make_denial(identity, "write rollout_order", namespace)
    if sorted(value.split(",")) != sorted(identity.workers):
        raise ApiError(
            400,
            "invalid_argument",
            "the rollout order must name each active worker of the job once: " + ",".join(identity.workers),
        )


def check_write_secret(identity: Identity, namespace: str) -> None:
    """Let through the job's own secrets."""
    check_namespace(namespace)
    if namespace != f"secrets/job/{identity.job}":
        raise make_denial(identity, "write secrets", namespace)
    check_event(identity, namespace)


def check_event(identity: Identity, namespace: str) -> None:
    """Refuse writes in health checks."""
    if identity.event == READ_ONLY_EVENT:
        raise make_denial(identity, "write", namespace)


def check_worker(identity: Identity, worker: str) -> None:
    """Let through the workers of the hook's job."""
    if worker not in identity.workers:
        raise ApiError(403, "permission_denied", f"{worker} is not a worker of job {identity.job}; see rollout_order()")


def own_namespaces(identity: Identity) -> frozenset[str]:
    """Name what is everybody's and what is the hook's own."""
    worker = f"maand/worker/{identity.worker}"
    job = f"maand/job/{identity.job}"
    return frozenset(
        {
            *("maand/bucket", "vars/bucket", "maand/worker", worker, f"{worker}/tags"),
            *(job, f"vars/bucket/job/{identity.job}", f"{job}/worker/{identity.worker}"),
            *(f"vars/job/{identity.job}", f"secrets/job/{identity.job}"),
        }
    )


def demanded_namespaces(identity: Identity) -> frozenset[str]:
    """Name what demanded jobs let the hook read."""
    return frozenset(f"{area}/job/{job}" for job in identity.demanded_jobs for area in ("maand", "vars", "secrets"))


def make_denial(identity: Identity, act: str, namespace: str) -> ApiError:
    """Word a refusal."""
    return ApiError(
        403,
        "permission_denied",
        f"a hook of job {identity.job} on {identity.event} may not {act} in {namespace}; it reads its own job, its worker and "
        "the jobs that it demands, and writes its job's variables and secrets",
    )
