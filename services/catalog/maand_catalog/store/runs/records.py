"""What the catalog itself writes into a run's record, in the contract's words. Everything else comes from the executor.

Events, specs and results are stored as the contract's messages, serialized: they are read back as they were sent.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from maand_catalog.rules.runs import MOST_BARREN_TAKEOVERS, ClaimEnd, EventRecord, Run, RunKind
from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_wire.enums import enum_number


def record_from_event(event: pb.RunEvent) -> EventRecord:
    """Make an event ready for the store; its sequence is the store's to give."""
    stored = pb.RunEvent()
    stored.CopyFrom(event)
    stored.ClearField("sequence")
    return EventRecord(kind=event.WhichOneof("event") or "", payload=stored.SerializeToString())


def event_from_record(payload: bytes, sequence: int) -> pb.RunEvent:
    """Read an event back, with its sequence."""
    event = pb.RunEvent.FromString(payload)
    event.sequence = sequence
    return event


def finished_event(result: bytes, now: datetime) -> EventRecord:
    """Return the event that ends a run."""
    return record_from_event(with_time(now, pb.RunEvent(run_finished=pb.RunFinished(result=pb.RunResult.FromString(result)))))


def cancelled_result(run: Run, *, requested_by: str) -> pb.RunResult:
    """Return the result of a run that was cancelled while nobody ran it."""
    whom = f" by {requested_by}" if requested_by else ""
    when = "before it started" if run.fence == 0 else "after it was interrupted"
    return pb.RunResult(message=f"cancelled{whom} {when}")


def bucket_held_result(holder: Run) -> pb.RunResult:
    """Return the result of a run that waited for the bucket in vain."""
    whom = f" of {holder.requested_by}" if holder.requested_by else ""
    message = f"the bucket was still held by {holder.kind} run {holder.run_id}{whom} when the lock timeout was over"
    help_text = f"wait for it (maand runs watch {holder.run_id}), cancel it, or allow more time with --lock-timeout"
    failure = pb.Failure(kind=pb.FAILURE_KIND_BUCKET_HELD, message=message, help=help_text)
    return pb.RunResult(message=message, failures=[failure], next_command=f"maand runs watch {holder.run_id}")


def prerequisite_result(message: str, *, help_text: str) -> pb.RunResult:
    """Return the result of a run for which something needed is missing."""
    return pb.RunResult(
        message=message, failures=[pb.Failure(kind=pb.FAILURE_KIND_PREREQUISITE, message=message, help=help_text)]
    )


RESTORED = "the database was restored from a backup: what this run did since then is not recorded, so it does not go on"
COPIED = "this database is a copy of another one: this run is the other one's, so it does not go on here"


def restored_result(run: Run, *, copied: bool) -> pb.RunResult:
    """Return the result of a run that was open in a backup which was restored, or in a database that was copied.

    It names no failure: nobody knows what it did, so neither "nothing was done" nor anything else may be concluded from a kind.
    """
    return pb.RunResult(
        message=COPIED if copied else RESTORED,
        notices=["maand deploy continues from what is recorded; look at the workers first where that may be wrong"],
        next_command="maand deploy" if run.kind is RunKind.DEPLOY else "",
    )


def interruption_event(run: Run, why: ClaimEnd, reason: str, *, pause: timedelta, now: datetime) -> EventRecord:
    """Return the notice that a run lost its executor, why, in a word and a sentence, and what becomes of it."""
    when = f" in {pause.total_seconds():g} s" if pause else ""
    resume = f"maand runs resume {run.run_id}"
    if run.may_be_taken_over:
        reason += f"; another executor may continue it{when}"
    elif resume not in reason:  # an executor that leaves a run to a person says itself how
        reason += f"; {resume} goes on with it"
    notice = pb.Notice(level=pb.NOTICE_LEVEL_WARNING, text=reason, claim_end=enum_number(pb.ClaimEnd, why))
    return record_from_event(with_time(now, pb.RunEvent(notice=notice)))


def taken_over_in_vain_result(run: Run, reason: str) -> pb.RunResult:
    """Return the result of a run that ends its executors, or is ended with them, again and again."""
    message = (
        f"given up after {MOST_BARREN_TAKEOVERS} takeovers in a row that recorded nothing; the last ended like this: {reason}"
    )
    help_text = "look at the executor's log (locally: maand services logs) for what ends it; what was recorded as done stays"
    failure = pb.Failure(kind=pb.FAILURE_KIND_INTERNAL, message=message, help=help_text)
    return pb.RunResult(message=message, failures=[failure])


def describe_progress(events: Iterable[pb.RunEvent]) -> str:
    """Return what a run is doing after these events, in a sentence for people; empty when they do not say."""
    sentence = ""
    for event in events:
        match event.WhichOneof("event"):
            case "waiting":
                sentence = f"waits for {event.waiting.reason}"
            case "wave_started":
                sentence = f"wave {event.wave_started.wave + 1} of {event.wave_started.waves}"
            case "batch_started":
                batch = event.batch_started
                sentence = f"{event.job + ': ' if event.job else ''}{batch.phase}, batch {batch.index + 1} of {batch.count}"
    return sentence


def with_time(now: datetime, event: pb.RunEvent) -> pb.RunEvent:
    """Give an event its time."""
    event.time.FromDatetime(now)
    return event
