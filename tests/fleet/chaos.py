"""Random kills of a rolling deploy: what was lost, repeated, left behind, and how long until the next deploy succeeded.

    python -m tests.fleet.chaos --kills 30 --seed 7        (`make chaos`)

Twenty real workers, batches of four. After every restart a hook takes a semaphore, writes a value and a secret, and notes in a
file what it was told. At a random moment one thing is killed or stopped; then `maand deploy` is typed until it succeeds.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fleet.fleet import Fleet, lifecycle_counts, make_fleet, promoted_steps, services_pid
from tests.fleet.watching import hooks_alive, is_gone, wait_for

JOB = "ring"
FROZEN_SECONDS = 20
"""Longer than a lease: what wakes has lost it."""
MUST_BE_ZERO = (
    "steps lost",
    "steps repeated",
    "left here",
    "left on workers",
    "slots left",
    "values lost",
    "tokens not rising",
    "held twice",
    "exit 6",
)
SEEN_BY_THE_COMMAND = ("hook", "rsync")
"""What makes a deploy fail: whoever typed it sees it end before typing the next."""
MAKEFILE = """\
SHELL := /bin/bash
say = read -r content < content; echo "$@ $(JOB) $$content $(1) $$EPOCHREALTIME" >> ../../../events.log
start restart stop:
	@$(call say,begins); sleep 0.3; $(call say,ends)
"""
HOOK = """\
import os, time
from maand import allocation_ip, put_job_secret, put_job_variable, semaphore

content = open("../content").read().strip()


def note(*words):
    with open({notes!r}, "a") as notes:
        notes.write(" ".join(map(str, words)) + "\\n")


with semaphore("ring", capacity=1) as slot:
    note("holds", slot.fencing_token, time.monotonic(), os.getpid())
    put_job_variable("seen_" + allocation_ip().replace(".", "_"), content).raise_for_status()
    put_job_secret("sealed_" + allocation_ip().replace(".", "_"), content).raise_for_status()
    note("kept", allocation_ip(), content)
    note("leaves", slot.fencing_token, time.monotonic(), os.getpid())
"""


@dataclass(kw_only=True)
class Chaos:
    """A fleet, and what was counted on it."""

    fleet: Fleet
    notes: Path
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Until the next deploy ended with 0, by kind."""
    undisturbed: float = 0

    def begin(self) -> None:
        """Deploy for the first time, and once more to see how long it takes."""
        self.fleet.bucket.write(f"workspace/jobs/{JOB}/Makefile", MAKEFILE)
        self.fleet.bucket.write(f"workspace/jobs/{JOB}/_hooks/hook_mark.py", HOOK.format(notes=str(self.notes)))
        self.fleet.bucket.write(
            f"workspace/jobs/{JOB}/manifest.json",
            '{"selectors": ["worker"], "max_concurrent_upgrades": 4, "max_concurrent_starts": 20,'
            ' "hooks": {"hook_mark": {"executed_on": ["after_allocation_started"]}}}',
        )
        for content in (self.fleet.new_content(), self.fleet.new_content()):
            self.fleet.write_content(content, JOB)
            began = time.monotonic()
            self.fleet.bucket.must("deploy", "--build", timeout=300)
            self.undisturbed = time.monotonic() - began

    def disturb(self, kind: str) -> None:
        """Deploy something new, kill, and deploy until that succeeds."""
        content = self.fleet.new_content()
        self.fleet.write_content(content, JOB)
        self.notes.write_text("")
        deploying = self.fleet.bucket.start("deploy", "--build")
        wait_for(lambda: bool(lifecycle_counts(self.fleet, content, JOB)), "the first restart")
        time.sleep(self.chance.uniform(0, self.undisturbed * 0.6))
        KINDS[kind](self, deploying)
        recorded = promoted_steps(self.fleet.bucket)
        began = time.monotonic()
        if kind in SEEN_BY_THE_COMMAND:
            see_out(deploying)
        self.deploy_until_it_succeeds(goes_on_unattended=kind == "command line")
        self.seconds.setdefault(kind, []).append(time.monotonic() - began)
        see_out(deploying)
        self.judge(content, recorded)

    def deploy_until_it_succeeds(self, *, goes_on_unattended: bool) -> None:
        """Type `maand deploy` again and again; where only the command was killed, its run is well and holds the bucket."""
        for _ in range(30):
            ended = self.fleet.bucket.run("deploy", timeout=300)
            if ended.exit_code == 0:
                return
            self.counts[f"exit {ended.exit_code}{', the run goes on' if goes_on_unattended else ''}"] += 1
            time.sleep(1)
        raise AssertionError(ended.output)

    def judge(self, content: str, recorded: set[tuple[str, str]]) -> None:
        """Count what is not as it should be."""
        counts, times = self.counts, lifecycle_counts(self.fleet, content, JOB)
        bucket, hosts = self.fleet.bucket, self.fleet.hosts
        self.counts["steps lost"] += sum(self.fleet.states(JOB).get(host) != "promoted" or not times[JOB, host] for host in hosts)
        self.counts["steps lost"] += self.fleet.delivered(JOB) != {content}
        self.counts["steps repeated"] += sum(times[key] > 1 for key in recorded)
        self.counts["in flight, done again"] += sum(count - 1 for count in times.values() if count > 1)
        counts["left here"] += len(hooks_alive(bucket)) + len(processes_of(bucket.path, "rsync"))
        counts["left on workers"] += sum(
            any("rsync --server" in line or "make -s -C" in line for line in worker.processes()) for worker in self.fleet.workers
        )
        counts["slots left"] += len(bucket.must("semaphore", "list", "-o", "json").json())
        self.judge_notes()

    def judge_notes(self) -> None:
        """Compare what hooks were told with what is kept, and look at who held the semaphore when."""
        lines = [line.split() for line in self.notes.read_text().splitlines()]
        listed = self.fleet.bucket.must("kv", "list", f"vars/job/{JOB}", "-o", "json").json()
        values = {one["key"]: one["value"] for one in listed}
        for _, host, content in (line for line in lines if line[0] == "kept"):
            self.counts["values lost"] += values.get(f"seen_{host.replace('.', '_')}") != content
        held = [(int(line[1]), float(line[2])) for line in lines if line[0] == "holds"]
        left = {int(line[1]): float(line[2]) for line in lines if line[0] == "leaves"}
        for (token, _), (next_token, began) in itertools.pairwise(held):
            self.counts["tokens not rising"] += next_token <= token
            self.counts["held twice"] += left.get(token, 0.0) > began

    def table(self) -> str:
        """Return what was counted, for people."""
        kills = sum(map(len, self.seconds.values()))
        lines = [f"{kills} kills; an undisturbed deploy took {self.undisturbed:.1f} s", ""]
        for kind, seconds in sorted(self.seconds.items()):
            span = f"{min(seconds):5.1f} to {max(seconds):5.1f} s until a deploy ended with 0"
            lines.append(f"{kind:24}{len(seconds):3} kills, {span}")
        lines += ["", *(f"{name:24}{self.counts[name]:3}" for name in dict.fromkeys((*MUST_BE_ZERO, *sorted(self.counts))))]
        return "\n".join(lines)

    def broken(self) -> dict[str, int]:
        """Return the counts that must be zero and are not."""
        return {name: self.counts[name] for name in MUST_BE_ZERO if self.counts[name]}


def see_out(deploying: "subprocess.Popen[str]") -> None:
    """Wait for the end of the command that was disturbed, a minute at most."""
    if deploying.stdout and not deploying.stdout.closed:
        with suppress(subprocess.TimeoutExpired):
            deploying.communicate(timeout=60)


def kill_command(chaos: Chaos, deploying: "subprocess.Popen[str]") -> None:
    """Kill the command line that a person looks at."""
    deploying.kill()


def kill_services(chaos: Chaos, deploying: "subprocess.Popen[str]") -> None:
    """Kill catalog, executor and gateway."""
    pid = services_pid(chaos.fleet.bucket)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid), "the services to be gone")


def kill_hook(chaos: Chaos, deploying: "subprocess.Popen[str]") -> None:
    """Kill the hooks that run."""
    wait_for(lambda: bool(processes_of(chaos.fleet.bucket.path, "hook_mark")) or deploying.poll() is not None, "a hook")
    kill_all(processes_of(chaos.fleet.bucket.path, "hook_mark"))


def kill_copy(chaos: Chaos, deploying: "subprocess.Popen[str]") -> None:
    """Kill the copies that run."""
    wait_for(lambda: bool(processes_of(chaos.fleet.bucket.path, "rsync")) or deploying.poll() is not None, "a copy")
    kill_all(processes_of(chaos.fleet.bucket.path, "rsync"))


def freeze_services(chaos: Chaos, deploying: "subprocess.Popen[str]") -> None:
    """Stop the services for longer than their lease, and let them go on."""
    pid = services_pid(chaos.fleet.bucket)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(FROZEN_SECONDS)
    os.kill(pid, signal.SIGCONT)


def kill_everything(chaos: Chaos, deploying: "subprocess.Popen[str]") -> None:
    """Kill the command line, the services, and all that they started here."""
    pid = services_pid(chaos.fleet.bucket)
    started = [*processes_of(chaos.fleet.bucket.path, "hook_mark"), *processes_of(chaos.fleet.bucket.path, "rsync")]
    kill_all([pid, *started])
    deploying.kill()
    wait_for(lambda: is_gone(pid), "the services to be gone")


KINDS: dict[str, Callable[[Chaos, "subprocess.Popen[str]"], None]] = {
    "command line": kill_command,
    "hook": kill_hook,
    "rsync": kill_copy,
    "services": kill_services,
    "services stopped 20 s": freeze_services,
    "everything": kill_everything,
}


def processes_of(bucket: Path, word: str) -> list[int]:
    """Return the processes here, not on workers, whose command line has this word and that belong to this bucket."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if word in line and (str(bucket) in line or str(bucket) in str((entry / "cwd").readlink())):
                found.append(int(entry.name))
    return found


def kill_all(pids: list[int]) -> None:
    """Kill processes, those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cause_chaos(directory: Path, *, kills: int, seed: int) -> Chaos:
    """Kill so many times, every kind in turn and in a random order, and return what was counted."""
    fleet = make_fleet(directory, jobs=False)
    try:
        chaos = Chaos(fleet=fleet, notes=directory / "notes", chance=random.Random(seed))
        chaos.begin()
        kinds = (list(KINDS) * -(-kills // len(KINDS)))[:kills]
        chaos.chance.shuffle(kinds)
        for number, kind in enumerate(kinds, 1):
            chaos.disturb(kind)
            print(f"{number:3} {kind}: {chaos.seconds[kind][-1]:.1f} s {chaos.broken() or ''}", flush=True)
    finally:
        fleet.close()
    return chaos


def main() -> None:
    """Cause chaos and print the table; exit code 1 when something is not zero that must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1_000_000))
    asked = parser.parse_args()
    print(f"seed {asked.seed}")
    with tempfile.TemporaryDirectory(prefix="maand-chaos-") as directory:
        chaos = cause_chaos(Path(directory), kills=asked.kills, seed=asked.seed)
    print(chaos.table())
    if chaos.broken():
        raise SystemExit(1)


if __name__ == "__main__":
    main()
