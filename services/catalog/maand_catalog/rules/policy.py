"""Who may do what in the KV store: the specification's table as data, and one function that reads it.

    namespace --locate_namespace()--> Place, as seen by a hook --HOOK_TABLE--> Rule for the act --word_denial()--> Denied or None

People and services go by their role instead: ROLE_TABLE. Decided here once, for every door (KV, secrets, templates).
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from maand_catalog.rules.identity import Caller, HookCaller, Role, RoleCaller
from maand_catalog.rules.namespaces import (
    ROLLOUT_ORDER,
    allocation_namespace,
    is_built,
    is_private_key,
    is_secret,
    job_namespace,
    secret_namespace,
    settings_namespace,
    tags_namespace,
    variables_namespace,
    worker_namespace,
)

ROLLOUT_ORDER_EVENTS = frozenset({"pre_deploy", "cli"})
READ_ONLY_EVENT = "health_check"


class Act(enum.StrEnum):
    """What somebody wants to do with an entry."""

    READ = "read"
    LIST = "list"
    WRITE = "write"
    DELETE = "delete"
    WRITE_SECRET = "write as a secret"  # noqa: S105 - an act, not a password
    REVEAL = "reveal"


class Place(enum.StrEnum):
    """Where a namespace lies, as seen by one hook invocation."""

    BUCKET = "the bucket"
    OWN_WORKER = "its worker, and what all workers share"
    OWN_JOB = "its job, as built"
    OWN_ALLOCATION = "its allocation"
    PEER = "another allocation of its job"
    OWN_VARIABLES = "its job's variables"
    OWN_SECRETS = "its job's secrets"
    DEMANDED = "a job that its job demands"
    ELSEWHERE = "anything else"


class Rule(enum.StrEnum):
    """What the table says of an act at a place."""

    YES = "yes"
    NO = "no"
    NOT_PRIVATE_KEYS = "all but certs/*.key"
    ROLLOUT_ORDER = "only rollout_order, only in pre_deploy and cli"
    NOT_IN_HEALTH_CHECK = "not in health_check"
    AS_SECRET = "through the secret call"  # noqa: S105 - a rule, not a password


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row of the table. Whoever reads a place may list its keys; nobody reveals from inside a hook."""

    read: Rule = Rule.YES
    write: Rule = Rule.NO
    delete: Rule = Rule.NO
    write_secret: Rule = Rule.NO

    def rule(self, act: Act) -> Rule:
        """Return the cell of an act."""
        cells = {
            Act.READ: self.read,
            Act.LIST: Rule.NO if self.read is Rule.NO else Rule.YES,
            Act.WRITE: self.write,
            Act.DELETE: self.delete,
            Act.WRITE_SECRET: self.write_secret,
        }
        return cells.get(act, Rule.NO)


HOOK_TABLE: Mapping[Place, TableRow] = {
    Place.BUCKET: TableRow(),
    Place.OWN_WORKER: TableRow(),
    Place.OWN_JOB: TableRow(write=Rule.ROLLOUT_ORDER),
    Place.OWN_ALLOCATION: TableRow(),
    Place.PEER: TableRow(read=Rule.NOT_PRIVATE_KEYS),
    Place.OWN_VARIABLES: TableRow(write=Rule.NOT_IN_HEALTH_CHECK, delete=Rule.NOT_IN_HEALTH_CHECK),
    Place.OWN_SECRETS: TableRow(write=Rule.AS_SECRET, delete=Rule.AS_SECRET, write_secret=Rule.NOT_IN_HEALTH_CHECK),
    Place.DEMANDED: TableRow(),
    Place.ELSEWHERE: TableRow(read=Rule.NO),
}


class EntryKind(enum.StrEnum):
    """What an entry is, to a person or a service."""

    VARIABLE = "a variable"
    SECRET = "a secret"  # noqa: S105 - a kind, not a password
    PRIVATE_KEY = "a private key"
    SETTING = "from a settings file of the workspace"
    BUILT = "written by build"


ROLE_TABLE: Mapping[EntryKind, Mapping[Act, Role]] = {
    EntryKind.VARIABLE: {Act.READ: Role.VIEWER, Act.LIST: Role.VIEWER, Act.WRITE: Role.OPERATOR, Act.DELETE: Role.OPERATOR},
    EntryKind.SECRET: {Act.LIST: Role.VIEWER, Act.WRITE_SECRET: Role.OPERATOR, Act.REVEAL: Role.OPERATOR},
    EntryKind.PRIVATE_KEY: {Act.LIST: Role.VIEWER},
    EntryKind.SETTING: {Act.READ: Role.VIEWER, Act.LIST: Role.VIEWER},
    EntryKind.BUILT: {Act.READ: Role.VIEWER, Act.LIST: Role.VIEWER},
}
"""Smallest role for an act; an act that is missing is nobody's."""


@dataclass(frozen=True, kw_only=True)
class PolicyContext:
    """What the table needs to know beyond the caller."""

    demanded_jobs: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, kw_only=True)
class Denied:
    """Why not, in one sentence, and what to do instead (empty: nothing can be advised)."""

    reason: str
    help: str = ""


def decide_access(caller: Caller, act: Act, namespace: str, key: str, context: PolicyContext) -> Denied | None:
    """Say whether this caller may do this with that entry; None means yes. `key` is empty when a whole namespace is meant."""
    match caller:
        case HookCaller():
            return decide_for_hook(caller, act, namespace, key, context)
        case RoleCaller():
            return decide_for_role(caller, act, namespace, key)


def decide_for_hook(caller: HookCaller, act: Act, namespace: str, key: str, context: PolicyContext) -> Denied | None:
    """Read the cell of the hook table and see whether its rule is kept."""
    place = locate_namespace(caller, namespace, context)
    rule = HOOK_TABLE[place].rule(act)
    if RULES[rule](caller, namespace, key):
        return None
    return word_denial(caller, act, namespace, rule)


RULES: Mapping[Rule, Callable[[HookCaller, str, str], bool]] = {
    Rule.YES: lambda caller, namespace, key: True,
    Rule.NO: lambda caller, namespace, key: False,
    Rule.AS_SECRET: lambda caller, namespace, key: False,
    Rule.NOT_PRIVATE_KEYS: lambda caller, namespace, key: not is_private_key(namespace, key),
    Rule.ROLLOUT_ORDER: lambda caller, namespace, key: key == ROLLOUT_ORDER and caller.event in ROLLOUT_ORDER_EVENTS,
    Rule.NOT_IN_HEALTH_CHECK: lambda caller, namespace, key: caller.event != READ_ONLY_EVENT,
}


def locate_namespace(caller: HookCaller, namespace: str, context: PolicyContext) -> Place:
    """Say where a namespace lies for this hook."""
    own = own_places(caller.job, caller.worker).get(namespace)
    if own is not None:
        return own
    if namespace.startswith(f"{job_namespace(caller.job)}/worker/") and namespace.count("/") == 4:
        return Place.PEER
    return Place.DEMANDED if demanded_job_of(namespace) in context.demanded_jobs else Place.ELSEWHERE


def own_places(job: str, worker: str) -> dict[str, Place]:
    """Name the namespaces that are everybody's, or a hook's own on this worker."""
    return {
        "maand/bucket": Place.BUCKET,
        "vars/bucket": Place.BUCKET,
        settings_namespace(job): Place.BUCKET,
        "maand/worker": Place.OWN_WORKER,
        worker_namespace(worker): Place.OWN_WORKER,
        tags_namespace(worker): Place.OWN_WORKER,
        job_namespace(job): Place.OWN_JOB,
        allocation_namespace(job, worker): Place.OWN_ALLOCATION,
        variables_namespace(job): Place.OWN_VARIABLES,
        secret_namespace(job): Place.OWN_SECRETS,
    }


def demanded_job_of(namespace: str) -> str | None:
    """Return the job whose content the namespace holds, if it is of a kind that demanding jobs may read."""
    prefix, _, job = namespace.rpartition("/")
    return job if job and prefix in ("maand/job", "vars/job", "secrets/job") else None


def readable_namespaces(job: str, worker: str, *, demanded_jobs: Iterable[str], peers: Iterable[str]) -> list[str]:
    """List every namespace that hooks of one allocation may read; `peers` are the workers of its job's other allocations."""
    others = [allocation_namespace(job, peer) for peer in peers if peer != worker]
    demanded = [
        named(other) for other in sorted(demanded_jobs) for named in (job_namespace, variables_namespace, secret_namespace)
    ]
    return [*own_places(job, worker), *others, *demanded]


def word_denial(caller: HookCaller, act: Act, namespace: str, rule: Rule) -> Denied:
    """Word a refusal of the hook table."""
    who = f"a hook of job {caller.job} on {caller.event}"
    match rule:
        case Rule.NO:
            return Denied(
                reason=f"{who} may not {act} in {namespace}",
                help="it reads its own job, its worker and the jobs that it demands; it writes its job's variables and secrets",
            )
        case Rule.AS_SECRET:
            return Denied(reason=f"{namespace} holds secrets", help="use the secret call, for example put_job_secret")
        case _:
            return Denied(reason=f"{who} may not {act} that in {namespace}: {rule}")


def decide_for_role(caller: RoleCaller, act: Act, namespace: str, key: str) -> Denied | None:
    """Read the cell of the role table and see whether the caller has the role."""
    content = kind_of_entry(namespace, key)
    role = ROLE_TABLE[content].get(act)
    if role is not None and role in caller.roles:
        return None
    if role is not None:
        return Denied(reason=f"{caller.name} may not {act} in {namespace}", help=f"it takes the role {role}")
    if content is EntryKind.SETTING and act in (Act.WRITE, Act.DELETE):
        place = settings_place(namespace)
        return Denied(
            reason=f"{namespace} is made from {place}: the next build would undo it",
            help=f"edit {place} and build, or use another namespace below vars/",
        )
    return Denied(reason=f"nobody may {act} in {namespace} this way", help=ROLE_HELP.get((content, act), ""))


def kind_of_entry(namespace: str, key: str) -> EntryKind:
    """Say what an entry is, to a person or a service."""
    if is_private_key(namespace, key):
        return EntryKind.PRIVATE_KEY
    if is_secret(namespace, key):
        return EntryKind.SECRET
    if is_built(namespace):
        return EntryKind.SETTING if namespace.startswith("vars/") else EntryKind.BUILT
    return EntryKind.VARIABLE if namespace.startswith("vars/") else EntryKind.BUILT


def settings_place(namespace: str) -> str:
    """Name the place in the workspace that a namespace below vars/bucket comes from."""
    job = namespace.removeprefix(settings_namespace(""))
    return "workspace/bucket.conf" if job == namespace else f"[{job}] of workspace/bucket.jobs*.conf"


ROLE_HELP: Mapping[tuple[EntryKind, Act], str] = {
    (EntryKind.SECRET, Act.READ): "use `maand secret reveal`; it is audited",
    (EntryKind.SECRET, Act.WRITE): "use `maand secret set`",
    (EntryKind.SECRET, Act.DELETE): "use `maand secret delete`",
    (EntryKind.PRIVATE_KEY, Act.READ): "private keys leave the catalog only for their own allocation",
    (EntryKind.BUILT, Act.WRITE): "build writes it; people write below vars/",
    (EntryKind.BUILT, Act.DELETE): "build writes it; people delete below vars/",
    (EntryKind.VARIABLE, Act.WRITE_SECRET): "secrets live in secrets/job/<job>",
}
