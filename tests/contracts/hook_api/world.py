"""The little fleet of the conformance table: three jobs, three workers, and everyone who may call.

job api       on 10.0.0.1 and 10.0.0.2; demands hook_schema of database
job database  on 10.0.0.3
job web       on 10.0.0.1, nobody's business
"""

from dataclasses import dataclass, replace

from maand_hook_sdk.memory_gateway import MemoryGateway
from maand_hook_sdk.memory_identity import Identity
from maand_hook_sdk.memory_state import MemoryState

API = Identity(
    job="api",
    worker="10.0.0.1",
    allocation_id="api-1",
    hook="hook_setup",
    event="pre_deploy",
    demanded_jobs=frozenset({"database"}),
    workers=("10.0.0.1", "10.0.0.2"),
)

CALLERS: dict[str, Identity] = {
    "api": API,
    "api_peer": replace(API, worker="10.0.0.2", allocation_id="api-2"),
    "api_post_deploy": replace(API, event="post_deploy"),
    "api_cli": replace(API, event="cli"),
    "api_health": replace(API, event="health_check"),
    "database": Identity(
        job="database",
        worker="10.0.0.3",
        allocation_id="database-1",
        hook="hook_schema",
        event="pre_deploy",
        workers=("10.0.0.3",),
    ),
    "web": Identity(
        job="web", worker="10.0.0.1", allocation_id="web-1", hook="hook_web", event="pre_deploy", workers=("10.0.0.1",)
    ),
}
"""Live invocations, by the name that cases use."""

DEAD = "dead"
STRANGER = "stranger"
NOBODY = "nobody"
"""A token whose hook has ended, a token that never was, no token."""

CONTENT: dict[str, dict[str, str]] = {
    "maand/bucket": {"bucket_id": "b"},
    "vars/bucket": {"region": "eu"},
    "vars/bucket/job/api": {"tier": "gold"},
    "maand/worker": {"certs/ca.crt": "ca"},
    "maand/worker/10.0.0.1": {"worker_ip": "10.0.0.1"},
    "maand/worker/10.0.0.1/tags": {"zone": "a"},
    "maand/worker/10.0.0.2": {"worker_ip": "10.0.0.2"},
    "maand/job/api": {"name": "api", "rollout_order": "10.0.0.1,10.0.0.2"},
    "maand/job/api/worker/10.0.0.1": {"version": "1.0.0", "certs/tls.key": "key-1", "certs/tls.crt": "crt-1"},
    "maand/job/api/worker/10.0.0.2": {"version": "1.0.0", "certs/tls.key": "key-2", "certs/tls.crt": "crt-2"},
    "maand/job/database": {"name": "database"},
    "maand/job/database/worker/10.0.0.3": {"version": "2.0.0"},
    "maand/job/web": {"name": "web"},
    "vars/job/api": {"greeting": "hello", "empty": ""},
    "secrets/job/api": {"token": "api-secret-token"},
    "vars/job/database": {"schema": "3"},
    "secrets/job/database": {"password": "database-secret"},
    "vars/job/web": {"theme": "dark"},
    "secrets/job/web": {"cookie": "web-secret-cookie"},
}
"""What build and operators put into the store, as far as cases look at it."""

STATE = MemoryState.from_json(
    {
        "kv": CONTENT,
        "ssh": [
            {"worker": "10.0.0.1", "command": "true", "stdout": "fine\n"},
            {"worker": "10.0.0.1", "command": "false", "exit_code": 3, "stderr": "broken\n"},
            {"worker": "10.0.0.1", "command": "sleep *", "exit_code": 124, "timed_out": True},
            {"worker": "10.0.0.1", "command": "env *make -s -C '/opt/worker/b/jobs/api' -- 'reload'", "stdout": "reloaded\n"},
            {"worker": "10.0.0.1"},
        ],
        "http": [
            {"method": "GET", "url": "http://10.0.0.1:8080/ok", "headers": {"x-served-by": "api"}, "body": "ok"},
            {"method": "POST", "url": "http://10.0.0.1:8080/teapot", "status_code": 418, "body": "short and stout"},
            {"url": "http*://10.0.0.1*"},
        ],
    }
)

DEMANDS = [{"job": "api", "hook": "hook_setup", "demand_config": {"min_version": "1.0.0"}}]
"""Who demands hook_schema of database."""


def make_memory() -> MemoryGateway:
    """Make a store with everything in it; not served yet."""
    memory = MemoryGateway(STATE)
    for identity in CALLERS.values():
        memory.demands[(identity.job, identity.hook)] = []
    memory.demands[("database", "hook_schema")] = list(DEMANDS)
    return memory


def begin_all(memory: MemoryGateway) -> dict[str, str]:
    """Begin every invocation; return tokens by caller."""
    tokens = {name: memory.begin(identity) for name, identity in CALLERS.items()}
    tokens[DEAD] = memory.begin(API)
    memory.end(tokens[DEAD])
    tokens[STRANGER] = "mh_never-heard-of"
    return tokens


@dataclass(frozen=True, kw_only=True)
class ServedApi:
    """A hook API that is up: the in-memory one, the gateway before fakes, or the gateway before a catalog."""

    address: str
    tokens: dict[str, str]
    identities: dict[str, Identity]


def environment(api: ServedApi, caller: str) -> dict[str, str]:
    """Return the environment of a hook that is this caller."""
    identity = api.identities.get(caller, api.identities["api"])
    host, _, port = api.address.rpartition(":")
    found = {
        "HOOK_API_HOST": host,
        "HOOK_API_PORT": port,
        "ALLOCATION_ID": identity.allocation_id,
        "ALLOCATION_IP": identity.worker,
        "ALLOCATION_INDEX": "0",
        "JOB": identity.job,
        "EVENT": identity.event,
        "HOOK": identity.hook,
        "DISABLED": "0",
        "CURRENT_VERSION": "1.0.0",
        "NEW_VERSION": "1.1.0",
        "BATCH_INDEX": "0",
        "BATCH_COUNT": "2",
        "BATCH_ALLOCATIONS": "10.0.0.1",
        "ROLLOUT_ORDER": "10.0.0.1,10.0.0.2",
        "JOB_PATH": "/opt/worker/b/jobs/api",
    }
    token = api.tokens.get(caller)
    return found | ({"HOOK_API_TOKEN": token} if token else {})
