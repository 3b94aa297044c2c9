"""Commands for workers as pure values: what is run, where, with which environment. Nothing here runs anything."""

import json
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from maand_executor.rules.facts import Allocation, BucketConfig, Worker

KEPT_DIRECTORIES = ("data", "logs", "bin")
"""Directories of a job on a worker that belong to the job: a copy never touches them."""
KEPT_UNTIL_GC = ("data", "logs")
"""What stays when an allocation was removed."""
UNKNOWN_CLOCK_MHZ = 1_000.0


def bucket_directory(config: BucketConfig) -> str:
    """Return where the bucket lives on a worker; relative to the SSH user's home when `worker_root` is."""
    return str(PurePosixPath(config.worker_root) / config.bucket_id)


def job_directory(config: BucketConfig, job: str) -> str:
    """Return where a job lives on a worker."""
    return f"{bucket_directory(config)}/jobs/{job}"


def make_script(config: BucketConfig, job: str, target: str) -> str:
    """Run one target of the job's Makefile; never an option of make, whatever the target is called."""
    return f"make -s -C {shlex.quote(job_directory(config, job))} -- {shlex.quote(target)}"


def make_environment(allocation: Allocation) -> dict[str, str]:
    """Return what a Makefile is told."""
    return {
        "CURRENT_VERSION": allocation.current_version,
        "NEW_VERSION": allocation.new_version,
        "ALLOCATION_INDEX": str(allocation.index),
        "ALLOCATION_IP": allocation.worker,
        "JOB": allocation.job,
    }


def stop_script(config: BucketConfig, job: str) -> str:
    """Stop a job; where its Makefile is not on the worker, nothing was ever deployed and nothing is to be stopped."""
    directory = shlex.quote(job_directory(config, job))
    return f"if [ -e {directory}/Makefile ]; then {make_script(config, job, 'stop')}; fi"


def remove_files_script(config: BucketConfig, job: str) -> str:
    """Delete what was deployed, keep what the job wrote; an emptied directory goes too."""
    directory = shlex.quote(job_directory(config, job))
    kept = " ".join(f"! -name {name}" for name in KEPT_UNTIL_GC)
    return (
        f"if [ -d {directory} ]; then "
        f"find {directory} -mindepth 1 -maxdepth 1 {kept} -exec rm -rf -- {{}} + && "
        f"{{ rmdir -- {directory} 2>/dev/null || true; }}; fi"
    )


def remove_directory_script(config: BucketConfig, job: str) -> str:
    """Delete everything of a job, its data and logs too."""
    return f"rm -rf -- {shlex.quote(job_directory(config, job))}"


TOOLS = ("bash", "make", "rsync", "timeout", "flock")
"""What maand's commands need on a worker, besides `sudo` where it is used."""


def preflight_script(*, sudo: bool) -> str:
    """Say what a worker lacks: `lacks <tool>`, and `refused <words>` where sudo does not run bash. Nothing = all is well."""
    tools = (*TOOLS, "sudo") if sudo else TOOLS
    script = f'for tool in {" ".join(tools)}; do command -v $tool >/dev/null 2>&1 || echo "lacks $tool"; done'
    ask_sudo = "said=$(sudo -n bash --noprofile --norc -c true 2>&1) || echo \"refused ${said##*$'\\n'}\""
    return f"{script}\ncommand -v sudo >/dev/null 2>&1 && {{ {ask_sudo}; }}" if sudo else script


SILENT_SUDO = "`sudo -n bash` fails and says nothing"


@dataclass(frozen=True, kw_only=True)
class PreflightFindings:
    """What a worker is not ready for."""

    missing_tools: tuple[str, ...] = ()
    sudo_refusal: str = ""


def parse_preflight(text: str) -> PreflightFindings:
    """Read what `preflight_script` printed."""
    lines = text.splitlines()
    return PreflightFindings(
        missing_tools=tuple(line.removeprefix("lacks ") for line in lines if line.startswith("lacks ")),
        sudo_refusal=next((line.removeprefix("refused ") or SILENT_SUDO for line in lines if line.startswith("refused ")), ""),
    )


def describe_worker_script(config: BucketConfig) -> str:
    """Write `worker.json` and `jobs.json` (both on standard input, one a line), each by rename."""
    directory = shlex.quote(bucket_directory(config))
    write = 'IFS= read -r line && printf "%s\\n" "$line" >.{name}.new && chmod 644 .{name}.new && mv -f .{name}.new {name}'
    return f"umask 022; mkdir -p {directory}/jobs && cd {directory} && " + " && ".join(
        write.format(name=name) for name in ("worker.json", "jobs.json")
    )


def describe_worker(config: BucketConfig, worker: Worker, allocations: Iterable[Allocation]) -> bytes:
    """Return what `describe_worker_script` reads: the worker, and the jobs placed on it."""
    about = {
        "bucket_id": config.bucket_id,
        "worker_id": worker.worker_id,
        **({"owner_id": config.owner_id} if config.owner_id else {}),
        "host": worker.name,
        "hostname": worker.hostname,
        "labels": list(worker.labels),
        "tags": dict(worker.tags),
        "position": worker.position,
    }
    jobs = [describe_allocation(allocation) for allocation in sorted(allocations, key=lambda one: one.job)]
    return "".join(json.dumps(part, sort_keys=True) + "\n" for part in (about, jobs)).encode()


def describe_allocation(allocation: Allocation) -> Mapping[str, object]:
    """Return one entry of `jobs.json`."""
    return {
        "job": allocation.job,
        "allocation_id": allocation.allocation_id,
        "allocation_index": allocation.index,
        "version": allocation.new_version,
        "disabled": allocation.disabled,
    }


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """What a worker has."""

    memory_mb: int
    cpu_mhz: int


def facts_script() -> str:
    """Print memory and clock speeds as Linux tells them."""
    return (
        "grep -E '^MemTotal:' /proc/meminfo; grep -E '^(processor|cpu MHz)[[:space:]]*:' /proc/cpuinfo; "
        "cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq 2>/dev/null | sed 's/^/max_khz: /'"
    )


def parse_worker_facts(text: str) -> WorkerFacts | None:
    """Read what `facts_script` printed: MiB, and MHz over all cores. None when there is not enough in it.

    Cores whose highest clock is known count with it; others with the clock they run at now, or with 1,000 MHz.
    """
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        with suppress(ValueError, IndexError):
            found.setdefault(name.strip(), []).append(float(value.split()[0]))
    memory, cores = found.get("MemTotal", []), len(found.get("processor", []))
    if not memory or not cores:
        return None
    clocks = [khz / 1000 for khz in found.get("max_khz", [])] or found.get("cpu MHz", []) or [UNKNOWN_CLOCK_MHZ] * cores
    return WorkerFacts(memory_mb=int(memory[0] / 1024), cpu_mhz=round(sum(clocks)))
