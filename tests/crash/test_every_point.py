"""An executor dies before and after its k-th outward act, for every k, and another goes on: the end is the undisturbed one.

After each: what was recorded is not repeated, what hooks were told is kept is kept, nobody older acts on a worker after somebody
newer, no semaphore stays taken, and workers, allocations, values and the run's summary are those of an undisturbed run.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from maand_contracts.catalog.v1 import run_pb2
from maand_contracts.catalog.v1 import run_spec_pb2 as spec_pb
from tests.crash.acts import Moment
from tests.crash.crash_bed import HOSTS, CrashBed, Life, Outcome, Start, crash_bed
from tests.crash.jobs import write_jobs

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

LEFT = HOSTS[-1]
KINDS = {
    "deploy": spec_pb.RunSpec(deploy=spec_pb.DeploySpec()),
    "hooks": spec_pb.RunSpec(hooks=spec_pb.HooksSpec(hook="hook_tend", job="api")),
    "job restart": spec_pb.RunSpec(job_control=spec_pb.JobControlSpec(job="api", action=spec_pb.JOB_ACTION_RESTART)),
    "run_command": spec_pb.RunSpec(run_command=spec_pb.RunCommandSpec(command="a-command", concurrency=2)),
    "gc": spec_pb.RunSpec(gc=spec_pb.GcSpec()),
}
LIFECYCLE = {"copy", "start", "restart", "reload", "hook_joined@after_allocation_started"}


async def arrange(bed: CrashBed, kind: str) -> Start:
    """Bring the bucket to where a run of this kind has something to do."""
    write_jobs(bed.deploys, version="1.0.0", web=False)
    await bed.carry_out(await build(bed), Life())
    await bed.carry_out(KINDS["deploy"], Life())
    write_jobs(bed.deploys, version="2.0.0", web=True, disabled=[LEFT])
    if kind == "gc":
        bed.deploys.write_workers(HOSTS[:-1])
    await bed.carry_out(await build(bed), Life())
    if kind != "deploy":
        await bed.carry_out(KINDS["deploy"], Life())
    return bed.remember()


async def build(bed: CrashBed) -> spec_pb.RunSpec:
    """Upload the workspace."""
    return spec_pb.RunSpec(build=spec_pb.BuildSpec(snapshot_id=await bed.deploys.upload()))


def repeated(outcome: Outcome) -> list[str]:
    """Return what was done again although an earlier executor had recorded it."""
    found = []
    for acts, recorded in zip(outcome.lives, outcome.recorded, strict=False):
        later = {one.on for one in outcome.world.done if one.owner > acts.owner}
        found += [what for name in recorded for what in done_by(name) & later]
        begun = {f"{name.rpartition('/')[0]}/command" for name in recorded if name.endswith("command:begun")}
        if acts.dies_at:  # resumed without --again
            found += [one.on for one in outcome.world.done if one.on in begun and one.owner == acts.owner + 1]
    return sorted(found)


def done_by(step: str) -> set[str]:
    """Return what must not be done any more once a step is recorded."""
    subject, _, name = step.rpartition("/")
    if name.partition(":")[0] == "promoted":
        return {f"{subject}/{what}" for what in LIFECYCLE}
    if name in ("stopped", "removed"):
        return {f"{subject}/stop"}
    if name.startswith("command:"):
        return {f"{subject}/command"} if name.startswith("command:ended:") else set()
    if name.startswith("control:"):
        return {f"{subject}/{name.removeprefix('control:')}"}
    event, _, hook = name.partition(":")
    return {f"{subject}/{hook}@{event.partition('.')[0]}"}


def overtaken(outcome: Outcome) -> list[str]:
    """Return what an older executor did on a worker after a newer one had acted there under its fence."""
    newest: Counter[str] = Counter()
    found = []
    for one in outcome.world.done:
        if "@" in one.what or one.what == "command":
            continue  # hooks die with their executor, and commands carry no fence
        if one.owner < newest[one.worker]:
            found.append(f"{one.on} by {one.owner} after {newest[one.worker]}")
        newest[one.worker] = max(newest[one.worker], one.owner)
    return found


def lost(outcome: Outcome) -> list[str]:
    """Return what hooks were told is kept, and is not."""
    values = outcome.state["values"]
    keys = {f"{namespace.rsplit('/', 1)[-1]}/{key}" for namespace, key in outcome.world.acknowledged}
    return sorted(keys - values.keys())


def what_is_wrong(outcome: Outcome, undisturbed: Outcome) -> list[str]:
    """Return every promise that was broken."""
    wrong = [f"repeated: {what}" for what in repeated(outcome)]
    wrong += [f"overtaken: {what}" for what in overtaken(outcome)]
    wrong += [f"lost: {what}" for what in lost(outcome)]
    return wrong + [
        f"{name}: {outcome.state[name]} instead of {wanted}"
        for name, wanted in undisturbed.state.items()
        if outcome.state[name] != wanted
    ]


SHARDS = {"deploy": 4}
"""Tests among which the acts of a kind are dealt out."""
PARTS = [(kind, shard) for kind in KINDS for shard in range(SHARDS.get(kind, 1))]


@pytest.mark.parametrize(("kind", "shard"), PARTS, ids=lambda part: str(part))
async def test_an_executor_may_die_before_and_after_every_outward_act(tmp_path: Path, kind: str, shard: int) -> None:
    shards = SHARDS.get(kind, 1)
    async with crash_bed(tmp_path) as bed:
        story = await Story.begin(bed, kind)
        for number in range(1 + shard, story.acts + 1, shards):
            await story.disturb(Life(dies_at=number, moment=Moment.BEFORE))
            if kind != "deploy" or number // shards % 2:  # after an act is before the next one, but for what goes on beside it
                await story.disturb(Life(dies_at=number, moment=Moment.AFTER))
    story.conclude()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_executor_that_was_frozen_in_an_act_does_no_harm_when_it_wakes(tmp_path: Path, kind: str) -> None:
    async with crash_bed(tmp_path) as bed:
        story = await Story.begin(bed, kind)
        for number in range(1, story.acts + 1, 10 if kind == "deploy" else 3):
            await story.disturb(Life(dies_at=number, moment=Moment.FROZEN))
    story.conclude()


async def test_the_executor_that_goes_on_may_die_too(tmp_path: Path) -> None:
    chance = random.Random(11)
    async with crash_bed(tmp_path) as bed:
        story = await Story.begin(bed, "deploy")
        for _ in range(8):
            first, second = (Life(dies_at=chance.randint(1, story.acts), moment=chance.choice(list(Moment))) for _ in range(2))
            await story.disturb(first, second)
    story.conclude()


@dataclass(kw_only=True)
class Story:
    """A run of one kind, told again and again from the same beginning."""

    bed: CrashBed
    kind: str
    start: Start
    undisturbed: Outcome
    deaths: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    async def begin(cls, bed: CrashBed, kind: str) -> Self:
        """Bring the bucket to the beginning and see how the run goes when nobody dies."""
        start = await arrange(bed, kind)
        undisturbed = await bed.carry_out(KINDS[kind], Life())
        assert undisturbed.ended.state == run_pb2.RUN_STATE_SUCCEEDED, undisturbed.ended.result
        return cls(bed=bed, kind=kind, start=start, undisturbed=undisturbed)

    @property
    def acts(self) -> int:
        """How many outward acts the run takes; the next may take one or two fewer, as calls are made together."""
        return len(self.undisturbed.lives[0].names)

    async def disturb(self, *lives: Life) -> None:
        """Let the run be carried out by executors that die, and one that does not."""
        self.bed.go_back_to(self.start)
        last = [Life(), Life()] if self.kind == "run_command" else [Life()]  # resumed, and resumed with --again
        outcome = await self.bed.carry_out(KINDS[self.kind], *lives, *last)
        died = [acts for acts in outcome.lives if acts.has_died]
        self.deaths.update(acts.moment for acts in died)
        if wrong := what_is_wrong(outcome, self.undisturbed):
            self.wrong[", then ".join(f"{acts.moment} {acts.dies_at}: {acts.names[acts.dies_at - 1]}" for acts in died)] = wrong

    def conclude(self) -> None:
        """Say how many died, and fail for every promise that was broken."""
        print(f"{self.kind}: {self.acts} acts; executors died", ", ".join(f"{moment}: {n}" for moment, n in self.deaths.items()))
        assert self.deaths
        assert not self.wrong
