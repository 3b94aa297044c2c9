"""The KV store against a model of a dozen lines, step by step, on both databases: whatever is done, reads agree."""

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from maand_catalog.database.database import Database
from maand_catalog.rules.kv_writes import KeyNotFound, KvPreconditionLost, Precondition
from maand_catalog.store.kv import entries as store
from maand_catalog.store.kv.batched_store import KvStore
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.kv_builders import SECRETS, VARS, Bench, a_keyring
from tests.contracts.catalog.run_builders import a_bucket

NAMES = st.sampled_from([(VARS, "a"), (VARS, "b"), (SECRETS, "a")])
VALUES = st.sampled_from(["", "x", "y", "ü" * 50])
MINUTES = st.sampled_from([0, 1, 5])
CONDITIONS = st.one_of(st.none(), st.just("absent"), st.just("newest"), st.integers(0, 5))

Name = tuple[str, str]


class Key:
    """A key as the specification describes it: a list of versions, and when the newest one expires."""

    def __init__(self) -> None:
        self.versions: list[str | None] = []
        self.expires: list[int | None] = []

    def value(self, now: int, version: int = 0) -> str | None:
        if not 0 < (version or len(self.versions)) <= len(self.versions):
            return None
        at = (version or len(self.versions)) - 1
        expires = self.expires[at]
        return None if expires is not None and expires <= now else self.versions[at]


class KvMachine(RuleBasedStateMachine):
    """Does the same to the store and to the model."""

    runner: asyncio.Runner
    kv: KvStore
    clock: ShiftedClock

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(self.kv, self.run(a_bucket(self.kv.database)))
        self.keys: dict[Name, Key] = {}
        self.now = 0
        self.last_revision = 0
        self.followed: dict[Name, tuple[int, bool]] = {}

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    @rule(name=NAMES, value=VALUES, minutes=MINUTES, condition=CONDITIONS)
    def put(self, name: Name, value: str, minutes: int, condition: object) -> None:
        self.write(name, value, minutes, condition)

    @rule(name=NAMES, condition=CONDITIONS)
    def delete(self, name: Name, condition: object) -> None:
        self.write(name, None, 0, condition)

    def write(self, name: Name, value: str | None, minutes: int, condition: object) -> None:
        key = self.keys.setdefault(name, Key())
        newest, present = len(key.versions), key.value(self.now)
        asked = condition_for(condition, newest)
        attempt = self.bench.put(
            name[1],
            value,
            namespace=name[0],
            secret=name[0] == SECRETS,
            ttl=timedelta(minutes=minutes) if minutes else None,
            condition=asked,
        )
        if value is None and present is None:
            with pytest.raises(KeyNotFound):
                self.run(attempt)
            return
        if asked and not (present is None if asked.version is None else asked.version == newest):
            with pytest.raises(KvPreconditionLost) as lost:
                self.run(attempt)
            assert lost.value.facts == {"current_version": newest}
            return
        expires = self.now + minutes if minutes else None
        if present is not None and present == value:
            key.expires[-1] = expires
        else:
            key.versions.append(value)
            key.expires.append(expires)
        written = self.run(attempt)
        assert written.version == len(key.versions)
        assert written.revision > 0

    @rule(minutes=st.sampled_from([1, 4]))
    def time_passes(self, minutes: int) -> None:
        self.clock.advance(timedelta(minutes=minutes))
        self.now += minutes

    @rule(name=NAMES, version=st.integers(1, 6))
    def read_a_version(self, name: Name, version: int) -> None:
        expected = self.keys.get(name, Key()).value(self.now, version)
        assert self.run(self.bench.value(name[1], namespace=name[0], version=version)) == expected

    @invariant()
    def every_read_agrees(self) -> None:
        for name, key in self.keys.items():
            assert self.run(self.bench.value(name[1], namespace=name[0])) == key.value(self.now)

    @invariant()
    def listings_agree(self) -> None:
        for namespace in (VARS, SECRETS):
            here = [(name[1], key) for name, key in self.keys.items() if name[0] == namespace]
            expected = sorted(name for name, key in here if key.value(self.now) is not None)
            listed = self.run(
                self.kv.database.read(partial(store.list_keys, bucket_id=self.bench.bucket_id, namespace=namespace))
            )
            assert listed == expected

    @invariant()
    def a_follower_knows_the_newest_versions(self) -> None:
        changes, told = self.run(
            self.kv.database.read(lambda tx: store.list_changes(tx, self.bench.bucket_id, "", self.last_revision))
        )
        assert [change.revision for change in changes] == sorted({change.revision for change in changes})
        self.last_revision = told
        for change in changes:
            self.followed[change.namespace, change.key] = (change.version, change.is_tombstone)
        assert self.followed == {
            name: (len(key.versions), key.versions[-1] is None) for name, key in self.keys.items() if key.versions
        }


def condition_for(condition: object, newest: int) -> Precondition | None:
    """Turn a drawn condition into a precondition."""
    match condition:
        case "absent":
            return Precondition(version=None)
        case "newest":
            return Precondition(version=newest)
        case int():
            return Precondition(version=condition)
        case _:
            return None


def test_the_store_does_what_the_model_does(database_url: str, tmp_path: Path) -> None:
    clock = ShiftedClock()
    with asyncio.Runner() as runner:
        database = runner.run(open_database(database_url, clock))
        kv = KvStore.on(database, a_keyring(tmp_path))
        machine = type("Machine", (KvMachine,), {"runner": runner, "kv": kv, "clock": clock})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=25,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(database.close())


async def open_database(url: str, clock: ShiftedClock) -> Database:
    return await Database.open(url, clock=clock)
