"""The life of runs under any sequence of acts: claims, lapses, late writes of old owners, cancels, resumes.

A model of what each bucket's runs must be is kept beside a real SQLite store, on a clock moved by hand.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import sqlalchemy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from maand_catalog.database.clock import DatabaseClock
from maand_catalog.database.transaction import Transaction
from maand_catalog.ids import new_id
from maand_catalog.rules.runs import (
    ACTIVE,
    BucketHeld,
    EventRecord,
    Run,
    RunEnded,
    RunKind,
    RunNotInterrupted,
    RunRequest,
    RunState,
    StaleFence,
)
from maand_catalog.store.runs import control as runs
from maand_catalog.store.runs import ends as run_ends
from maand_catalog.store.runs import events as run_events
from maand_catalog.store.runs import leases
from maand_catalog.store.runs.retention import end_long_waits
from maand_catalog.store.runs.run_states import RUN_COLUMNS, to_run
from maand_catalog.store.tables import metadata
from maand_catalog.store.tables.buckets import buckets
from maand_catalog.store.tables.runs import run_events as event_table
from maand_catalog.store.tables.runs import runs as run_table

T = TypeVar("T")
BUCKET = "11111111-1111-1111-1111-111111111111"
LEASE = timedelta(seconds=15)
KINDS = [RunKind.DEPLOY, RunKind.BUILD, RunKind.HOOKS, RunKind.RUN_COMMAND]


class HandClock(DatabaseClock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def read(self, connection: sqlalchemy.Connection) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.now.timestamp()


class Runs(RuleBasedStateMachine):
    """Acts on one bucket. `claims` remembers every claim ever made, so that old owners may speak up at any time."""

    @initialize()
    def begin(self) -> None:
        self.engine = sqlalchemy.create_engine("sqlite://")
        self.clock = HandClock()
        self.claims: list[Run] = []
        self.appended: dict[str, int] = {}
        metadata.create_all(self.engine)
        row = {"bucket_id": BUCKET, "created_at": self.clock.now, "maand_conf": b"", "config_sha256": bytes(32)}
        self.do(lambda tx: tx.connection.execute(sqlalchemy.insert(buckets), row))

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.dispose()

    def do(self, intention: Callable[[Transaction], T]) -> T:
        with self.engine.begin() as connection:
            return intention(Transaction(connection, self.clock))

    def all_runs(self) -> list[Run]:
        query = sqlalchemy.select(*RUN_COLUMNS).order_by(run_table.c.seq)
        return self.do(lambda tx: [to_run(row) for row in tx.connection.execute(query)])

    @rule(kind=st.sampled_from(KINDS), wait=st.sampled_from([0, 30]))
    def ask(self, kind: RunKind, wait: int) -> None:
        holds = kind in (RunKind.DEPLOY, RunKind.BUILD)
        request = RunRequest(
            run_id=new_id(),
            bucket_id=BUCKET,
            kind=kind,
            spec=b"",
            holds_bucket=holds,
            requested_by="",
            lock_timeout=timedelta(seconds=wait),
        )
        is_held = any(run.state in ACTIVE and run.hold is not None for run in self.all_runs())
        try:
            self.do(lambda tx: runs.create_run(tx, request))
        except BucketHeld:
            assert holds
            assert is_held
            assert not wait
        else:
            assert wait or not (holds and is_held)

    @rule(executor=st.sampled_from(["e1", "e2"]))
    def claim(self, executor: str) -> None:
        before = {run.run_id: run for run in self.all_runs()}
        claimed = self.do(lambda tx: leases.claim_run(tx, executor_id=executor, bucket_ids=[], lease=LEASE))
        if claimed is None:
            return
        was = before[claimed.run_id]
        assert was.state_at(self.clock.now) in (RunState.PENDING, RunState.INTERRUPTED)
        assert claimed.fence == was.fence + 1
        assert claimed.lease_until == self.clock.now + LEASE
        if was.state_at(self.clock.now) is RunState.INTERRUPTED:
            assert claimed.kind is not RunKind.RUN_COMMAND
        self.claims.append(claimed)

    @rule(by=st.sampled_from([1, 10, 20]))
    def time_goes_by(self, by: int) -> None:
        self.clock.now += timedelta(seconds=by)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), act=st.sampled_from(["renew", "append", "step", "finish"]))
    def an_owner_speaks(self, data: st.DataObject, act: str) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        now = next(run for run in self.all_runs() if run.run_id == claim.run_id)
        owns = now.is_held_by(claim.fence, self.clock.now)
        place = (BUCKET, claim.run_id, claim.fence)
        acts: dict[str, Callable[[Transaction], object]] = {
            "renew": lambda tx: leases.renew_lease(tx, *place, lease=LEASE),
            "append": lambda tx: run_events.append_events(
                tx, *place, events=[EventRecord(kind="output", payload=b"")], doing="", request_id=""
            ),
            "step": lambda tx: run_events.record_steps(tx, *place, names=["a", "b"]),
            "finish": lambda tx: run_ends.finish_run(tx, *place, state=RunState.SUCCEEDED, message="", result=b""),
        }
        repeated = act == "finish" and now.fence == claim.fence and now.state is RunState.SUCCEEDED
        try:
            self.do(acts[act])
        except StaleFence:
            assert not owns
            assert not repeated
        else:
            assert owns or repeated

    @precondition(lambda self: self.all_runs())
    @rule(data=st.data())
    def somebody_cancels(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.all_runs()))
        try:
            self.do(lambda tx: runs.cancel_run(tx, BUCKET, run.run_id, requested_by="ada"))
        except RunEnded:
            assert run.has_ended
        else:
            assert not run.has_ended

    @precondition(lambda self: self.all_runs())
    @rule(data=st.data())
    def somebody_resumes(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.all_runs()))
        was_cancelled_by_lapse = run.has_lapsed(self.clock.now) and run.cancel
        try:
            self.do(lambda tx: runs.resume_run(tx, BUCKET, run.run_id))
        except RunNotInterrupted:
            assert run.state_at(self.clock.now) is not RunState.INTERRUPTED or was_cancelled_by_lapse
        else:
            assert run.state_at(self.clock.now) is RunState.INTERRUPTED

    @rule(executor=st.sampled_from(["e1", "e2"]))
    def an_executor_goes(self, executor: str) -> None:
        self.do(lambda tx: run_ends.release_leases(tx, executor_id=executor, except_executor_id=""))

    @rule()
    def the_housekeeper_comes_by(self) -> None:
        self.do(run_ends.interrupt_lapsed_runs)
        failed = self.do(end_long_waits)
        for run in self.all_runs():
            if run.run_id in failed:
                assert run.state is RunState.FAILED
                assert run.seq > 1

    @precondition(lambda self: self.all_runs())
    @rule()
    def a_backup_is_restored(self) -> None:
        before = {run.run_id for run in self.all_runs() if not run.has_ended}
        assert {run.run_id for run in self.do(lambda tx: run_ends.end_open_runs(tx, copied=False))} == before
        for run in self.all_runs():
            assert run.has_ended
            assert run.state is RunState.FAILED or run.run_id not in before

    @invariant()
    def at_most_one_exclusive_run_runs(self) -> None:
        if hasattr(self, "engine"):
            running = [run for run in self.all_runs() if run.state is RunState.RUNNING and run.hold is not None]
            assert len(running) <= 1

    @invariant()
    def exclusive_runs_start_in_order(self) -> None:
        if hasattr(self, "engine"):
            waiting = False
            for run in self.all_runs():
                if run.hold is None or run.has_ended:
                    continue
                assert not (waiting and run.state is RunState.RUNNING), "an earlier one has not ended"
                waiting = True

    @invariant()
    def events_are_numbered_without_a_gap_and_nothing_follows_the_end(self) -> None:
        if not hasattr(self, "engine"):
            return
        query = sqlalchemy.select(event_table.c.run_id, event_table.c.sequence, event_table.c.kind)
        rows = self.do(lambda tx: tx.connection.execute(query.order_by(event_table.c.run_id, event_table.c.sequence)).all())
        for run in self.all_runs():
            told = [(row.sequence, row.kind) for row in rows if row.run_id == run.run_id]
            assert [sequence for sequence, _ in told] == list(range(1, run.last_sequence + 1))
            ends = [sequence for sequence, kind in told if kind == "run_finished"]
            assert ends == ([run.last_sequence] if run.has_ended else [])

    @invariant()
    def fences_only_rise(self) -> None:
        if hasattr(self, "engine"):
            fences = {run.run_id: run.fence for run in self.all_runs()}
            for claim in self.claims:
                assert claim.fence <= fences[claim.run_id]
            for run_id in fences:
                made = [claim.fence for claim in self.claims if claim.run_id == run_id]
                assert made == list(range(1, len(made) + 1))


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
