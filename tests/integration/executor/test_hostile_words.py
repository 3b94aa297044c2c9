"""Real workers that complain in control sequences: a batch fails as any other, and nothing that a terminal acts on is kept."""

from pathlib import Path

import pytest

from maand_wire.plain_text import HARMFUL
from tests.integration.executor.deploy_bed import deploy_bed
from tests.testbed.sshd import SshTestBed

RSYNC = "#!/bin/sh\nprintf '{}' >&2\nexit 12\n"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (r"\033]0;pwn\007\033[2Jevil\n", r"\x1b]0;pwn\x07\x1b[2Jevil"),
        (r"\033[31mno space left\033[0m\n", "no space left"),
        (r"\302\233" + r"31mC1 \342\200\256live\n", r"\x9b31mC1 \u202elive"),
    ],
    ids=["a screen cleared", "a colour", "C1 and a turned direction"],
)
async def test_what_an_rsync_complains_of_fails_its_own_allocation_and_is_told_harmlessly(
    tmp_path: Path, test_bed: SshTestBed, said: str, told: str
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        bed.write_job("api", {"max_concurrent_starts": 2})
        await bed.build()
        bed.workers[1].stand_in("rsync", RSYNC.format(said))

        ended = await bed.deploy()

        [failure] = ended.result.failures
        assert (failure.job, failure.worker, failure.message) == ("api", bed.hosts[1], told)
        assert ended.result.counts["promoted"] == 1
        after = (await bed.allocations("api"))[bed.hosts[1]]
        assert told in after.message
        texts = [after.message, ended.result.message, *(event.step_finished.message for event in ended.of_kind("step_finished"))]
        assert not any(map(HARMFUL.search, texts))
