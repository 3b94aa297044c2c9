"""What tests of hooks share: an engine with real processes, which must leave nothing behind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.executor.hook_bed import HookBed


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[HookBed]:
    """Make an engine over a fake catalog; nothing of any invocation may be left when the test is over."""
    bed = HookBed(state_dir=tmp_path / "state")
    yield bed
    await bed.close()
    assert bed.left_behind() == []
