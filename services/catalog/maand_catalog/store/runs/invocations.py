"""Hook invocations: begun under a run's fence, and what a hook's token stands for until they end (`invocation_ends`)."""

from collections.abc import Iterable, Sequence
from dataclasses import fields

from sqlalchemy import and_, bindparam, insert, or_, select

from maand_catalog.database.statements import in_chunks, one_of
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound
from maand_catalog.rules.identity import HookCaller, InvocationBegin
from maand_catalog.rules.runs import RunState
from maand_catalog.rules.tasks import TaskState
from maand_catalog.store.runs.run_states import get_held_run
from maand_catalog.store.runs.task_states import get_held_task, get_task
from maand_catalog.store.tables.fleet import allocations
from maand_catalog.store.tables.identity import invocations
from maand_catalog.store.tables.runs import runs, tasks

FIND_HOOK_CALLER = (
    select(*(invocations.c[field.name] for field in fields(HookCaller)))
    .join(runs, runs.c.run_id == invocations.c.run_id)
    .outerjoin(tasks, tasks.c.task_id == invocations.c.task_id)
    .where(
        invocations.c.token_sha256 == bindparam("the_token"),
        invocations.c.ended_at.is_(None),
        runs.c.fence == invocations.c.fence,
        runs.c.state == RunState.RUNNING,
        runs.c.lease_until > bindparam("the_time"),
        or_(
            invocations.c.task_id.is_(None),
            and_(tasks.c.state == TaskState.RUNNING, tasks.c.lease_until > bindparam("the_time")),
        ),
    )
)
"""Made once: it is asked for every call of every hook."""


def begin_invocations(
    tx: Transaction, bucket_id: str, run_id: str, fence: int, begins: Sequence[InvocationBegin], *, task_id: str = ""
) -> None:
    """Begin invocations, all or none. NotFound for a run, a task or an allocation, StaleFence.

    Under a task, `fence` is the task's: then the claim that created the task must own the run, and this one the task.
    """
    run_fence = get_task(tx, bucket_id, task_id).run_fence if task_id else fence
    run = get_held_run(tx, bucket_id, run_id, run_fence)
    if task_id:
        get_held_task(tx, bucket_id, task_id, fence, run=run)
    placed = find_places(tx, bucket_id, {begin.allocation_id for begin in begins})
    rows = []
    for begin in begins:
        if begin.allocation_id not in placed:
            raise NotFound(f"there is no allocation {begin.allocation_id[:60]} in this bucket")
        job, worker = placed[begin.allocation_id]
        rows.append(
            {
                "invocation_id": begin.invocation_id,
                "bucket_id": bucket_id,
                "run_id": run_id,
                "fence": run_fence,
                "task_id": task_id or None,
                "job": job,
                "allocation_id": begin.allocation_id,
                "worker": worker,
                "hook": begin.hook,
                "event": begin.event,
                "token_sha256": begin.token_sha256,
                "begun_at": tx.now,
            }
        )
    if rows:
        tx.connection.execute(insert(invocations), rows)


def find_places(tx: Transaction, bucket_id: str, allocation_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return job and worker of allocations by id; those that do not exist are missing."""
    a = allocations.c
    places: dict[str, tuple[str, str]] = {}
    for chunk in in_chunks(sorted(set(allocation_ids))):
        query = select(a.allocation_id, a.job, a.worker).where(a.bucket_id == bucket_id, one_of(tx, a.allocation_id, chunk))
        places.update({row.allocation_id: (row.job, row.worker) for row in tx.connection.execute(query)})
    return places


def find_hook_caller(tx: Transaction, token_sha256: bytes) -> HookCaller | None:
    """Find the live invocation that a token stands for: not ended, its run still owned by whoever began it."""
    row = tx.connection.execute(FIND_HOOK_CALLER, {"the_token": token_sha256, "the_time": tx.lapse_time}).mappings().one_or_none()
    return HookCaller(**row) if row else None


def find_hook_callers(tx: Transaction, tokens_sha256: Sequence[bytes]) -> list[HookCaller | None]:
    """Find the invocations of many calls at once, each token looked up once; answers in the order asked."""
    found = {token: find_hook_caller(tx, token) for token in set(tokens_sha256)}
    return [found[token] for token in tokens_sha256]
