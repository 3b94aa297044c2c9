"""How runs stop being run: finished by their owner, interrupted, cancelled while nobody runs them, or tired of waiting.

A new epoch of the database ends them all (`store.runs.epochs`).

Whatever ends a claim ends its hook invocations in the same transaction: their tokens are dead and their semaphores free. Its
open tasks are dropped: whoever works on one is refused.
"""

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import ColumnElement, and_, select

from maand_catalog.database.clock import LONGEST_LEASE
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.identity import InvocationOutcome
from maand_catalog.rules.runs import (
    FINISHED,
    MOST_BARREN_TAKEOVERS,
    CancelLevel,
    ClaimEnd,
    Run,
    RunState,
    count_barren_takeovers,
    pause_before_claim,
)
from maand_catalog.store.runs import records as run_records
from maand_catalog.store.runs.events import append_own_event, read_last_event_kind
from maand_catalog.store.runs.invocation_ends import end_invocations_of_run
from maand_catalog.store.runs.run_states import RUN_COLUMNS, get_run, move_run, run_has_lapsed, stale_run_fence, to_run
from maand_catalog.store.runs.task_states import drop_tasks
from maand_catalog.store.tables.runs import runs


def finish_run(tx: Transaction, bucket_id: str, run_id: str, fence: int, *, state: RunState, message: str, result: bytes) -> None:
    """End a run as its owner says, or leave it interrupted. NotFound, StaleFence. A repeat changes nothing.

    Writes the last event unless the executor appended it.
    """
    run = get_run(tx, bucket_id, run_id, locked=True)
    if run.fence == fence and run.state is state:
        return
    if not run.is_held_by(fence, tx.lapse_time):
        raise stale_run_fence(run, fence, tx)
    if state is RunState.INTERRUPTED:
        interrupt_run(tx, run, ClaimEnd.GIVEN_UP, said=message)
        return
    end_invocations_of_run(tx, run.run_id, InvocationOutcome.INTERRUPTED)
    end_run(tx, run, state, message=message, result=result)


def interrupt_run(tx: Transaction, run: Run, why: ClaimEnd, *, said: str = "") -> Run:
    """Take a running run from its executor and return it as it then is. `said`: the executor's own words.

    One that was asked to stop is cancelled instead; one that was taken over too often without a new step has failed.
    """
    end_invocations_of_run(tx, run.run_id, InvocationOutcome.INTERRUPTED)
    drop_tasks(tx, run.run_id)
    reason = said or why.sentence(run.executor_id)
    barren = count_barren_takeovers(run, why)
    if barren >= MOST_BARREN_TAKEOVERS and run.may_be_taken_over and run.cancel is CancelLevel.NONE:
        result = run_records.taken_over_in_vain_result(run, reason)
        end_run(tx, run, RunState.FAILED, message=result.message, result=result.SerializeToString())
        return get_run(tx, run.bucket_id, run.run_id)
    pause = pause_before_claim(barren)
    append_own_event(tx, run, run_records.interruption_event(run, why, reason, pause=pause, now=tx.now))
    move_run(tx, run, RunState.INTERRUPTED, message=reason, barren_takeovers=barren, not_before=tx.now + pause)
    interrupted = replace(run, state=RunState.INTERRUPTED, lease_until=None, barren_takeovers=barren)
    if run.cancel is CancelLevel.NONE:
        return interrupted
    cancel_run_at_once(tx, interrupted, requested_by="")
    return get_run(tx, run.bucket_id, run.run_id)


def cancel_run_at_once(tx: Transaction, run: Run, *, requested_by: str) -> None:
    """Cancel a run that nobody runs."""
    result = run_records.cancelled_result(run, requested_by=requested_by)
    end_run(tx, run, RunState.CANCELLED, message=result.message, result=result.SerializeToString())


def fail_waiting_run(tx: Transaction, run: Run, holder: Run) -> None:
    """Fail a pending run whose lock timeout is over."""
    result = run_records.bucket_held_result(holder)
    end_run(tx, run, RunState.FAILED, message=result.message, result=result.SerializeToString())


def fail_claimed_run(tx: Transaction, run: Run, message: str, *, help_text: str) -> None:
    """Fail a run that was just claimed and cannot be carried out."""
    result = run_records.prerequisite_result(message, help_text=help_text)
    end_run(tx, run, RunState.FAILED, message=result.message, result=result.SerializeToString())


def end_open_runs(tx: Transaction, *, copied: bool) -> list[Run]:
    """Fail every run that has not ended: the database was restored from a backup, or is a copy. Returns them as they were.

    Rows that somebody is changing are waited for, unlike elsewhere: none may be left over.
    """
    query = select(*RUN_COLUMNS).where(runs.c.finished_at.is_(None)).order_by(runs.c.run_id).with_for_update()
    open_runs = [to_run(row) for row in tx.connection.execute(query).all()]
    for run in open_runs:
        result = run_records.restored_result(run, copied=copied)
        end_invocations_of_run(tx, run.run_id, InvocationOutcome.INTERRUPTED)
        end_run(tx, run, RunState.FAILED, message=result.message, result=result.SerializeToString())
    return open_runs


def end_run(tx: Transaction, run: Run, state: RunState, *, message: str, result: bytes) -> None:
    """Move a run to its end, with its last event."""
    drop_tasks(tx, run.run_id)
    if read_last_event_kind(tx, run.run_id) != FINISHED:
        append_own_event(tx, run, run_records.finished_event(result, tx.now))
    move_run(tx, run, state, message=message, result=result)


def interrupt_lapsed_runs(tx: Transaction, *, bucket_ids: Collection[str] = ()) -> list[str]:
    """Interrupt every run whose lease is over, and return their ids. Several replicas may do this at once."""
    lapsed = run_has_lapsed(tx)
    condition = and_(lapsed, runs.c.bucket_id.in_(bucket_ids)) if bucket_ids else lapsed
    return [interrupt_lapsed_run(tx, run).run_id for run in lock_runs_where(tx, condition)]


def interrupt_lapsed_run(tx: Transaction, run: Run) -> Run:
    """Take a run whose lease is over from its executor: whose fault that was depends on whether the catalog was there."""
    absence, until = tx.absence, run.lease_until
    was_away = absence is not None and until is not None and absence.covers_most_of(lease=LONGEST_LEASE, until=until)
    return interrupt_run(tx, run, ClaimEnd.CATALOG_AWAY if was_away else ClaimEnd.LEASE_LOST)


def release_leases(tx: Transaction, *, executor_id: str, except_executor_id: str) -> list[str]:
    """Interrupt every run of one executor, which stops, or of every executor but one, which died, and return their ids."""
    whose = runs.c.executor_id == executor_id if executor_id else runs.c.executor_id != except_executor_id
    why = ClaimEnd.EXECUTOR_STOPPED if executor_id else ClaimEnd.EXECUTOR_DIED
    are_theirs = and_(runs.c.finished_at.is_(None), runs.c.state == RunState.RUNNING, whose)
    return [interrupt_run(tx, run, why).run_id for run in lock_runs_where(tx, are_theirs)]


def lock_runs_where(tx: Transaction, condition: ColumnElement[bool]) -> list[Run]:
    """Read and lock the runs that fulfil a condition, but those that somebody else is changing right now."""
    query = select(*RUN_COLUMNS).where(condition).order_by(runs.c.run_id).with_for_update(skip_locked=True)
    return [to_run(row) for row in tx.connection.execute(query).all()]
