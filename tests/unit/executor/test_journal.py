"""The journal: in order, once, masked, in bounded memory, never in anybody's way."""

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib.resources import files

import grpc
import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.errors import LeaseLost
from maand_executor.output import journal as journal_module
from maand_executor.output.journal import Journal
from maand_executor.output.journal_entries import NOTICE_PREFIX
from maand_executor.output.masks import BucketMasks, Masks
from maand_executor.output.output_source import OutputSource
from maand_executor.rules.facts import MaskValues, RunIdentity
from maand_wire.errors import RemoteError
from tests.unit.executor.fake_catalog import AWAY, STALE, FakeCatalog

RUN = RunIdentity(bucket_id="bucket", run_id="run", seq=1, fence=2)
MIB = 1024 * 1024


@pytest.fixture
def catalog() -> FakeCatalog:
    return FakeCatalog()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RETRY_PAUSE", timedelta(milliseconds=1))


class SlowCatalog(FakeCatalog):
    """Takes nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Event()

    async def stream_mask_values(self, bucket_id: str, *, after_revision: int) -> AsyncIterator[MaskValues]:
        await self.ready.wait()
        async for chunk in super().stream_mask_values(bucket_id, after_revision=after_revision):
            yield chunk


def notice(text: str) -> pb.RunEvent:
    return pb.RunEvent(notice=pb.Notice(text=text))


async def test_events_and_output_of_a_source_come_in_order(catalog: FakeCatalog) -> None:
    async with Journal(RUN, catalog) as journal:
        journal.report(notice("first"))
        source = journal.source(job="api", worker="w1", step="hook_x")
        source.write("stdout", b"one\ntwo\n")
        source.write("stderr", b"three\n")
        source.write("stdout", b"four\nfive")
        source.close()
        journal.report(notice("last"))
    kinds = [event.WhichOneof("event") for event in catalog.events]
    assert kinds == ["notice", "output", "output", "output", "notice"]
    assert [list(event.output.lines) for event in catalog.events[1:4]] == [["one", "two"], ["three"], ["four", "five"]]
    assert {(event.job, event.worker, event.output.step) for event in catalog.events[1:4]} == {("api", "w1", "hook_x")}


async def test_lines_of_many_sources_are_gathered_into_one_event_each(catalog: FakeCatalog) -> None:
    async with Journal(RUN, catalog) as journal:
        sources = [journal.source(worker=f"w{number}") for number in range(10)]
        for number in range(20):
            for source in sources:
                source.write("stdout", f"{number}\n".encode())
    assert len(catalog.events) == 10
    assert catalog.lines(worker="w3") == [str(number) for number in range(20)]


async def test_flush_returns_when_everything_is_stored(catalog: FakeCatalog) -> None:
    journal = Journal(RUN, catalog, pause=timedelta(hours=1))
    for text in ("one", "two"):
        journal.report(notice(text))
        await journal.flush()
        assert catalog.events[-1].notice.text == text
    await journal.close()


async def test_every_event_carries_the_time_it_was_reported(catalog: FakeCatalog) -> None:
    async with Journal(RUN, catalog) as journal:
        journal.report(notice("now"))
    assert catalog.events[0].time.seconds > 0


async def test_everything_free_is_masked_and_names_are_not(catalog: FakeCatalog) -> None:
    catalog.secrets = ["hunter2secret"]
    failure = pb.Failure(job="hunter2secret", message="a hunter2secret b", last_lines=["hunter2secret"])
    events = [
        notice("say hunter2secret"),
        pb.RunEvent(job="hunter2secret", step_finished=pb.StepFinished(step="s", message="bad hunter2secret")),
        pb.RunEvent(job_planned=pb.JobPlanned(allocations=[pb.PlannedAllocation(diff="+hunter2secret", worker="hunter2secret")])),
        pb.RunEvent(waiting=pb.Waiting(reason="hunter2secret")),
        pb.RunEvent(
            run_finished=pb.RunFinished(result=pb.RunResult(failures=[failure], notices=["hunter2secret"], counts={"a": 1}))
        ),
    ]
    async with Journal(RUN, catalog) as journal:
        for event in events:
            journal.report(event)
        assert await journal.masked("x hunter2secret") == "x ***"
    stored = catalog.events
    assert stored[0].notice.text == "say ***"
    assert (stored[1].job, stored[1].step_finished.message) == ("hunter2secret", "bad ***")
    assert stored[2].job_planned.allocations[0].diff == "+***"
    assert stored[2].job_planned.allocations[0].worker == "hunter2secret"
    assert stored[3].waiting.reason == "***"
    result = stored[4].run_finished.result
    assert (result.failures[0].job, result.failures[0].message) == ("hunter2secret", "a *** b")
    assert (list(result.failures[0].last_lines), list(result.notices)) == (["***"], ["***"])


async def test_a_secret_stored_just_before_it_was_printed_is_masked(catalog: FakeCatalog) -> None:
    async with Journal(RUN, catalog) as journal:
        journal.report(notice("before"))
        await journal.flush()
        catalog.secrets.append("born-a-moment-ago")
        journal.output(worker="w", step="hook", stream="stdout", data=b"it is born-a-moment-ago\n")
    assert catalog.lines() == ["it is ***"]


async def test_only_what_is_new_is_asked_for(catalog: FakeCatalog) -> None:
    catalog.secrets = ["first-secret", "second-secret"]
    async with Journal(RUN, catalog) as journal:
        assert await journal.masked("first-secret second-secret third-secret") == "*** *** third-secret"
        catalog.secrets.append("third-secret")
        assert await journal.masked("first-secret second-secret third-secret") == "*** *** ***"
        assert await journal.masked("third-secret") == "***"
    assert catalog.mask_questions == [0, 2, 3]


async def test_all_work_of_a_bucket_shares_its_masks_and_the_last_takes_them_away(catalog: FakeCatalog) -> None:
    catalog.secrets = ["hunter2secret"]
    masks = Masks()
    run, task = (Journal(RUN, catalog, masks=masks.of(RUN.bucket_id)) for _ in range(2))

    assert set(await asyncio.gather(run.masked("hunter2secret"), task.masked("hunter2secret"))) == {"***"}
    other = Journal(RUN, catalog, masks=masks.of("another bucket"))
    await other.masked("x")

    assert catalog.mask_questions == [0, 1, 0]
    del run, task
    gc.collect()
    await Journal(RUN, catalog, masks=masks.of(RUN.bucket_id)).masked("x")
    assert catalog.mask_questions == [0, 1, 0, 0]


class BreakingCatalog(FakeCatalog):
    """Its streams of masks break after one chunk."""

    async def stream_mask_values(self, bucket_id: str, *, after_revision: int) -> AsyncIterator[MaskValues]:
        async for chunk in super().stream_mask_values(bucket_id, after_revision=after_revision):
            yield chunk
            if chunk.revision < len(self.secrets):
                raise AWAY


async def test_masks_that_break_off_go_on_where_they_ended_and_nothing_is_stored_before_all_are_known() -> None:
    catalog = BreakingCatalog()
    catalog.secrets = [f"secret-number-{number}" for number in range(10)]
    async with Journal(RUN, catalog) as journal:
        journal.output(worker="w", step="hook", stream="stdout", data=b"secret-number-9 secret-number-0\n")
    assert catalog.lines() == ["*** ***"]
    assert catalog.mask_questions == list(range(10))


@pytest.mark.parametrize(
    "error",
    [
        RemoteError(grpc.StatusCode.RESOURCE_EXHAUSTED, "a message is too large", code="message_too_large"),
        RemoteError(grpc.StatusCode.FAILED_PRECONDITION, "the key k1 is not in kv.key"),
    ],
)
async def test_masks_that_the_catalog_refuses_end_the_journal_and_nothing_is_stored(
    catalog: FakeCatalog, error: RemoteError
) -> None:
    catalog.mask_failures = [error]
    journal = Journal(RUN, catalog)
    journal.report(notice("not masked"))
    with pytest.raises(RemoteError, match=error.message):
        await journal.close()
    assert (catalog.appends, catalog.mask_questions) == (0, [0])


@pytest.mark.parametrize("status", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_what_never_gets_through_although_the_lease_is_kept_is_given_up(
    catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch, status: grpc.StatusCode
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_LIMIT", timedelta(milliseconds=20))
    catalog.mask_failures = [RemoteError(status, "never")] * 100_000
    journal = Journal(RUN, catalog)
    journal.report(notice("x"))
    with pytest.raises(RemoteError, match="never"):
        await journal.close()
    assert len(catalog.mask_questions) > 1


async def test_masks_begin_anew_when_the_catalog_says_an_older_revision(catalog: FakeCatalog) -> None:
    masks = BucketMasks("bucket")
    catalog.secrets = ["first-secret", "second-secret"]
    await masks.refresh(catalog)

    class Restored(FakeCatalog):
        async def stream_mask_values(self, bucket_id: str, *, after_revision: int) -> AsyncIterator[MaskValues]:
            self.mask_questions.append(after_revision)
            yield MaskValues(revision=1, values=("third-secret",))

    restored = Restored()
    assert (await masks.refresh(restored)).mask("first-secret third-secret") == "*** ***"
    await masks.refresh(restored)
    assert restored.mask_questions == [2, 1]


async def test_a_secret_written_in_two_flushes_is_masked(catalog: FakeCatalog) -> None:
    catalog.secrets = ["hunter2secret"]
    async with Journal(RUN, catalog) as journal:
        source = journal.source()
        source.write("stdout", b"it is hunter2")
        await journal.flush()
        source.write("stdout", b"secret\n")
    assert catalog.lines() == ["it is ***"]


async def test_a_secret_at_the_place_where_a_long_line_is_split_is_masked(catalog: FakeCatalog) -> None:
    catalog.secrets = ["hunter2secret"]
    async with Journal(RUN, catalog) as journal:
        source = journal.source()
        source.write("stdout", b"x" * (64 * 1024 - 5) + b"hunter2secret" + b"y" * 100_000 + b"\n")
        source.close()
    lines = catalog.lines()
    assert "".join(lines) == "x" * (64 * 1024 - 5) + "***" + "y" * 100_000
    assert max(map(len, lines)) <= 64 * 1024


async def test_a_line_that_the_sdk_marks_becomes_a_notice(catalog: FakeCatalog) -> None:
    catalog.secrets = ["hunter2secret"]
    async with Journal(RUN, catalog) as journal:
        source = journal.source(job="api", worker="w1", step="hook_x")
        source.write("stdout", b"one\n::maand-notice:: schema 42, hunter2secret\ntwo\n")
        source.write("stderr", b"::maand-notice:: only on stdout\n")
        source.close()
        assert source.notices == ["schema 42, hunter2secret"]
    assert [event.WhichOneof("event") for event in catalog.events] == ["output", "notice", "output", "output"]
    assert (catalog.events[1].job, catalog.events[1].notice.text) == ("api", "schema 42, ***")
    assert catalog.lines() == ["one", "two", "::maand-notice:: only on stdout"]


@pytest.mark.parametrize("file", ["maand.py", "maand.ts"])
def test_the_sdk_marks_notices_as_the_journal_expects(file: str) -> None:
    sdk = files("maand_hook_sdk").joinpath(file).read_text()
    assert f'NOTICE_PREFIX = "{NOTICE_PREFIX}"' in sdk


async def test_an_append_that_failed_after_it_was_stored_is_stored_once(catalog: FakeCatalog) -> None:
    catalog.append_failures = [AWAY, AWAY]
    async with Journal(RUN, catalog) as journal:
        journal.report(notice("once"))
    assert [event.notice.text for event in catalog.events] == ["once"]
    assert catalog.appends == 3


async def test_a_stale_fence_ends_the_journal_and_is_told_to_the_run(catalog: FakeCatalog) -> None:
    catalog.append_failures = [STALE]
    journal = Journal(RUN, catalog)
    journal.report(notice("too late"))
    with pytest.raises(LeaseLost):
        await journal.flush()
    journal.report(notice("nobody takes this"))
    with pytest.raises(LeaseLost):
        await journal.close()
    assert catalog.appends == 1


async def test_an_event_that_the_catalog_refuses_is_told_to_the_run(catalog: FakeCatalog) -> None:
    catalog.append_failures = [RemoteError(grpc.StatusCode.INVALID_ARGUMENT, "no such stream")]
    journal = Journal(RUN, catalog)
    journal.report(notice("odd"))
    with pytest.raises(RemoteError, match="no such stream"):
        await journal.close()


async def test_the_error_of_the_work_is_not_hidden_by_the_journal(catalog: FakeCatalog) -> None:
    catalog.append_failures = [STALE]

    async def work() -> None:
        async with Journal(RUN, catalog) as journal:
            journal.report(notice("x"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()


async def test_a_slow_catalog_costs_output_but_no_event_and_no_memory() -> None:
    catalog = SlowCatalog()
    journal = Journal(RUN, catalog, buffer_limit=MIB)
    source = journal.source(worker="w")
    for _ in range(80):
        source.write("stdout", (b"x" * 1023 + b"\n") * 100)
        journal.report(notice("still here"))
        await asyncio.sleep(0)
    assert journal._waiting_bytes <= MIB
    catalog.ready.set()
    await journal.flush()
    source.write("stdout", b"the end\n")
    source.close()
    await journal.close()
    lines = catalog.lines()
    assert lines[-1] == "the end"
    assert "dropped here" in lines[-2]
    assert sum(event.WhichOneof("event") == "notice" for event in catalog.events) == 80


async def test_after_dropped_output_a_line_does_not_begin_in_the_middle() -> None:
    catalog = SlowCatalog()
    catalog.secrets = ["hunter2secret"]
    journal = Journal(RUN, catalog, buffer_limit=200_000)
    source = journal.source()
    source.write("stdout", b"x" * 350_000 + b"hunter2")
    catalog.ready.set()
    await journal.flush()
    source.write("stdout", b"secret" + b"y" * 70_000 + b"\n")
    source.write("stdout", b"next\n")
    source.close()
    await journal.close()
    lines = catalog.lines()
    assert lines[-1] == "next"
    assert not any("secret" in line or "y" in line for line in lines if "dropped" not in line)


async def test_output_is_cut_after_its_cap_with_a_marker_and_its_end_is_still_known(catalog: FakeCatalog) -> None:
    async with Journal(RUN, catalog) as journal:
        source = OutputSource(journal.offer, job="", worker="", step="", cap=MIB)
        for number in range(2 * 1024):
            source.write("stdout", f"{number:1023}\n".encode())
        source.write("stderr", b"last words\n")
        source.close()
        assert source.tail().splitlines()[-1] == "last words"
    lines = catalog.lines()
    assert lines[-1] == "[output cut after 1 MiB; the process went on]"
    assert len(lines) == 1024 + 1


async def test_a_secret_torn_by_the_cap_is_not_shown_in_part(catalog: FakeCatalog) -> None:
    catalog.secrets = ["hunter2secret"]
    async with Journal(RUN, catalog) as journal:
        source = OutputSource(journal.offer, job="", worker="", step="", cap=MIB)
        source.write("stdout", b"a\n" * (MIB // 2 - 4) + b"hunter2secret and more\n")
        source.close()
    assert not [line for line in catalog.lines() if "hunter" in line]


async def test_closing_with_nothing_reported_is_nothing(catalog: FakeCatalog) -> None:
    await Journal(RUN, catalog).close()
    assert catalog.appends == 0


async def test_a_journal_that_nobody_closes_leaves_no_task_behind(catalog: FakeCatalog) -> None:
    journal = Journal(RUN, catalog, pause=timedelta(milliseconds=1))
    journal.report(notice("x"))
    await journal.flush()
    await asyncio.sleep(0.05)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
