"""The environment of an invocation: clean, and exactly what the specification lists, plus `JOB_PATH`.

`JOB_PATH` is the job's directory on the worker, for the SDK's `run_make_target`.

Later sources win, so neither the host nor `hook_env` can change who a hook is:

    host (PATH, HOME, LANG, TZ, TMPDIR)  <  hook_env  <  lifecycle variables  <  identity, batch, API
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from maand_executor.rules.facts import Allocation, RolloutOrder
from maand_executor.rules.waves import Batch

API_TOKEN_NAME = "HOOK_API_TOKEN"  # noqa: S105 - the name of a variable
HOST_NAMES = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
HOST_DEFAULTS = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": "/tmp"}  # noqa: S108 - a default


@dataclass(frozen=True, kw_only=True)
class InvocationFacts:
    """Everything the environment of one invocation is made of."""

    allocation: Allocation
    batch: Batch
    order: RolloutOrder
    event: str
    hook: str
    phase: str
    run_id: str
    bucket_id: str
    invocation_id: str
    job_path: str
    token: str = field(repr=False)
    hook_api: str = "127.0.0.1:8080"
    traceparent: str = ""
    lifecycle: Mapping[str, str] = field(default_factory=dict)
    hook_env: Mapping[str, str] = field(default_factory=dict, repr=False)


def invocation_environment(facts: InvocationFacts, host: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the process."""
    return {
        **host_variables(host),
        **facts.hook_env,
        **facts.lifecycle,
        **identity_variables(facts),
        **batch_variables(facts.batch, facts.order),
        **api_variables(facts),
    }


def host_variables(host: Mapping[str, str]) -> dict[str, str]:
    """Take the few variables that a process needs to find its way; TZ and HOME only where the host has them."""
    return {name: host.get(name) or HOST_DEFAULTS[name] for name in HOST_NAMES if host.get(name) or name in HOST_DEFAULTS}


def identity_variables(facts: InvocationFacts) -> dict[str, str]:
    """Say which allocation, job, event and versions it is about."""
    allocation = facts.allocation
    return {
        "ALLOCATION_ID": allocation.allocation_id,
        "ALLOCATION_IP": allocation.worker,
        "ALLOCATION_INDEX": str(allocation.index),
        "JOB": allocation.job,
        "EVENT": facts.event,
        "HOOK": facts.hook,
        "DISABLED": "1" if allocation.disabled else "0",
        "CURRENT_VERSION": allocation.current_version,
        "NEW_VERSION": allocation.new_version,
        "DEPLOY_PHASE": facts.phase or facts.event,
        "JOB_PATH": facts.job_path,
    }


def batch_variables(batch: Batch, order: RolloutOrder) -> dict[str, str]:
    """Say where in the rollout it is."""
    return {
        "BATCH_INDEX": str(batch.index),
        "BATCH_COUNT": str(batch.count),
        "BATCH_ALLOCATIONS": ",".join(batch.workers),
        "ROLLOUT_ORDER": ",".join(order.workers),
        "ROLLOUT_ORDER_SOURCE": "hook" if order.set_by_hook else "default",
    }


def api_variables(facts: InvocationFacts) -> dict[str, str]:
    """Say where, as whom, and on behalf of which run to call the runtime API."""
    host, _, port = facts.hook_api.rpartition(":")
    return {
        "HOOK_API_HOST": host.strip("[]"),  # an address, as sockets take it; brackets belong to URLs
        "HOOK_API_PORT": port,
        API_TOKEN_NAME: facts.token,
        "RUN_ID": facts.run_id,
        "BUCKET_ID": facts.bucket_id,
        "TRACEPARENT": facts.traceparent or derive_traceparent(facts.run_id, facts.invocation_id),
    }


def derive_traceparent(run_id: str, invocation_id: str) -> str:
    """Derive a W3C trace context from the run (trace) and the invocation (span), for runs that nobody traces yet."""
    return f"00-{hex_digits(run_id, 32)}-{hex_digits(invocation_id, 16)}-00"


def hex_digits(uuid: str, length: int) -> str:
    """Return the last hex digits of a UUID; they are its random part."""
    return uuid.replace("-", "").rjust(length, "0")[-length:]


def lifecycle_variables(
    *, new: Sequence[str] | None = None, updated: Sequence[str] | None = None, target: str = ""
) -> dict[str, str]:
    """Return what `job_control` is told: the allocations wanted (deploy), or the target (`maand job`)."""
    variables: dict[str, str] = {}
    if new is not None:
        variables["NEW_ALLOCATIONS"] = ",".join(new)
    if updated is not None:
        variables["UPDATED_ALLOCATIONS"] = ",".join(updated)
    if target:
        variables["TARGET"] = target
    return variables
