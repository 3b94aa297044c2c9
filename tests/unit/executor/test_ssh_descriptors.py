"""How many descriptors a process may have, and how many of them are for connections."""

import subprocess
import sys

import pytest

from maand_executor.ssh.settings import connections_that_fit, copies_that_fit


@pytest.mark.parametrize(
    ("limit", "connections"), [(16_384, 15_872), (4096, 3584), (1024, 512), (512, 119), (256, 55), (64, 7), (1, 1), (0, 1)]
)
def test_enough_is_left_for_everything_else(limit: int, connections: int) -> None:
    assert connections_that_fit(limit) == connections


@pytest.mark.parametrize(("limit", "copies"), [(16_384, 16), (512, 16), (256, 8), (128, 3), (64, 1), (1, 1)])
def test_copies_are_as_many_as_descriptors_allow(limit: int, copies: int) -> None:
    assert copies_that_fit(limit) == copies


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [(256, 256, 256), (256, 1024, 1024), (1024, 19_000, 16_384), (18_000, 19_000, 18_000)],
)
def test_the_soft_limit_is_raised_as_far_as_is_allowed_and_enough(soft: int, hard: int, raised: int) -> None:
    code = (
        "import resource; from maand_executor.ssh.settings import raise_soft_limit;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        "print(raise_soft_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(raised)] * 2
