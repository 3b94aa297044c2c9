"""Questions to workers, as scripts and as readings of what they print (pure), and the asking."""

import re
import time
from dataclasses import dataclass
from datetime import timedelta

from maand_executor.rules.facts import Worker
from maand_executor.rules.remote_commands import RemoteCommand, RemoteResult
from maand_executor.ssh.errors import CommandNotStarted
from maand_executor.ssh.remote import Remote

NEEDED_TOOLS = ("bash", "make", "rsync", "timeout", "flock")
"""What maand and Makefiles call on a worker (`flock` for fences); `bash` is proved by the answer itself."""

TOOLS_SCRIPT = "\n".join(f"command -v {tool} >/dev/null 2>&1 || echo {tool}" for tool in NEEDED_TOOLS)
SUDO_SCRIPT = "sudo -n true >/dev/null 2>&1 || echo 'sudo without a password'"

FACTS_SCRIPT = """
cat /proc/meminfo
echo ---
cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq 2>/dev/null
echo ---
cat /proc/cpuinfo
"""


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """Size of a worker: memory in MiB; MHz over all cores, 0 when the machine does not tell."""

    memory_mb: int
    cpu_mhz: int


async def find_missing_tools(
    remote: Remote, worker: Worker, *, sudo: bool, limit: timedelta = timedelta(seconds=30)
) -> tuple[str, ...]:
    """Name everything maand needs and the worker lacks, at once. Raises what reaching it raises."""
    script = f"{TOOLS_SCRIPT}\n{SUDO_SCRIPT}" if sudo else TOOLS_SCRIPT
    result = await remote.run(worker, RemoteCommand(script=script, sudo=False, timeout=limit))
    return tuple(answered(worker, result).splitlines())


async def read_facts(remote: Remote, worker: Worker, *, limit: timedelta = timedelta(seconds=30)) -> WorkerFacts:
    """Ask for memory and CPU. Raises what reaching it raises."""
    result = await remote.run(worker, RemoteCommand(script=FACTS_SCRIPT, sudo=False, timeout=limit))
    return parse_facts(answered(worker, result))


async def ping(remote: Remote, worker: Worker, *, limit: timedelta = timedelta(seconds=30)) -> timedelta:
    """Return how long a command takes that does nothing, login not counted. Raises what reaching it raises."""
    await remote.connect(worker)
    begun_at = time.monotonic()
    answered(worker, await remote.run(worker, RemoteCommand(script="true", sudo=False, timeout=limit)))
    return timedelta(seconds=time.monotonic() - begun_at)


def answered(worker: Worker, result: RemoteResult) -> str:
    """Return what a question brought to light. Raises `CommandNotStarted` when there was no answer."""
    if result.timed_out:
        raise CommandNotStarted(worker.host, "it does not answer in time")
    return result.stdout.decode("utf-8", "replace")


def parse_facts(text: str) -> WorkerFacts:
    """Read what `FACTS_SCRIPT` prints."""
    meminfo, _, rest = text.partition("---\n")
    frequencies, _, cpuinfo = rest.partition("---\n")
    memory = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return WorkerFacts(memory_mb=int(memory[1]) // 1024 if memory else 0, cpu_mhz=total_mhz(frequencies, cpuinfo))


def total_mhz(frequencies: str, cpuinfo: str) -> int:
    """Add the cores up: their greatest frequency where the kernel knows it, else what they run at now."""
    greatest = [int(word) for word in frequencies.split() if word.isdigit()]
    if greatest:
        return sum(greatest) // 1000
    return round(sum(float(number) for number in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", cpuinfo, re.MULTILINE)))
