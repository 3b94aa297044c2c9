"""Pytest fixtures of the test bed, known to every test: `tests/conftest.py` names this module as a plugin."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.testbed.sshd import SshTestBed

MakeTestBed = Callable[..., SshTestBed]


@pytest.fixture
def make_test_bed(tmp_path: Path) -> Iterator[MakeTestBed]:
    """Make test beds with settings of the test's choice; they are stopped when the test ends."""
    made: list[SshTestBed] = []

    def make(**options: object) -> SshTestBed:
        bed = SshTestBed(tmp_path / f"bed-{len(made)}", **options)  # type: ignore[arg-type]  # the options of SshTestBed
        made.append(bed)
        return bed

    yield make
    for bed in made:
        bed.stop()


@pytest.fixture
def test_bed(make_test_bed: MakeTestBed) -> SshTestBed:
    """Give a test bed with OpenSSH's defaults, the user `agent`, and no worker yet."""
    return make_test_bed()
