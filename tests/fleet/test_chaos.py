"""The short form of `make chaos`: one kill of every kind."""

import random
from pathlib import Path

import pytest

from tests.fleet.chaos import KINDS, cause_chaos

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]


def test_one_kill_of_every_kind_loses_and_repeats_nothing(tmp_path: Path) -> None:
    seed = random.randrange(1, 1_000_000)
    chaos = cause_chaos(tmp_path, kills=len(KINDS), seed=seed)
    print(f"seed {seed}\n{chaos.table()}")
    assert not chaos.broken(), chaos.table()
