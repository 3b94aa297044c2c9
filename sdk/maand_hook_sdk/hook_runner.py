"""Running one hook against an in-memory gateway: what `maand hooks test` does, and the pytest plugin.

Steps:
1. Copy the job's directory to a temporary place, with `maand.py` and `maand.ts` beside the script, as the executor does.
2. Fill an in-memory gateway from the state, with what build would have written about the job.
3. Run the script as one invocation: clean environment, `_hooks` as working directory, its own process group.
4. Report how it ended, what it printed, which calls it made, and what is in the store afterwards.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from maand_hook_sdk import SDK_FILES
from maand_hook_sdk.memory_gateway import MemoryGateway, RecordedCall
from maand_hook_sdk.memory_identity import Identity
from maand_hook_sdk.memory_state import BadState, MemoryState

NOTICE_PREFIX = "::maand-notice:: "
BUCKET_ID = "00000000-0000-0000-0000-000000000000"
PASSED_THROUGH = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
TOKEN_NAME = "HOOK_API_TOKEN"  # noqa: S105 - the variable's name
GRACE_SECONDS = 2
"""Between TERM and KILL: nobody tests a hook to wait for it."""
SUFFIXES = (".py", ".ts", ".js")
EVENTS = (
    *("post_build", "pre_deploy", "post_deploy", "job_control", "health_check"),
    *("after_allocation_started", "after_allocation_stopped", "cli"),
)


class HookTestError(Exception):
    """The hook cannot be run: no such script or event, or its interpreter is missing. The message says what to do."""

    code = "hook_test"


@dataclass(frozen=True, kw_only=True)
class HookTestReport:
    """What one run of a hook did."""

    exit_code: int
    timed_out: bool
    stdout: str
    stderr: str
    calls: tuple[RecordedCall, ...]
    state: Mapping[str, Mapping[str, str]] = field(repr=False)
    """Values by namespace and key after the run; secrets in clear: they came from the state file or were made for it."""

    @property
    def ok(self) -> bool:
        """Whether the hook succeeded."""
        return self.exit_code == 0 and not self.timed_out

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines for the run's summary."""
        lines = self.stdout.splitlines()
        return tuple(line.removeprefix(NOTICE_PREFIX) for line in lines if line.startswith(NOTICE_PREFIX))

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "ok": self.ok,
            "exit_code": self.exit_code,
            "timed_out": self.timed_out,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "notices": list(self.notices),
            "calls": [
                {"method": call.method, "path": call.path, "fields": dict(call.fields), "status": call.status}
                for call in self.calls
            ],
            "state": {namespace: dict(values) for namespace, values in self.state.items()},
        }


def run_hook_test(
    job_dir: Path,
    hook: str,
    *,
    allocation: str | None = None,
    event: str = "cli",
    state: MemoryState | None = None,
    args: Sequence[str] = (),
    timeout: float = 600,
    runtime: Mapping[str, str] | None = None,
) -> HookTestReport:
    """Run one hook of the job in `job_dir` for one allocation (default: the first) on one event.

    `runtime` names interpreters, `{"python": …, "bun": …}`. Raises `HookTestError` or `BadState` when it cannot be run.
    """
    if event not in EVENTS:
        raise HookTestError(f'"{event}" is not an event; use one of {", ".join(EVENTS)}')
    state = state or MemoryState()
    job = job_dir.resolve().name
    worker = allocation or state.allocations[0]
    if worker not in state.allocations:
        raise BadState(f"{worker} is no allocation of the state; it has {', '.join(state.allocations)}")
    identity = Identity(
        job=job,
        worker=worker,
        allocation_id=make_allocation_id(job, worker),
        hook=hook,
        event=event,
        demanded_jobs=frozenset(state.demanded_jobs),
        workers=state.allocations,
    )
    with tempfile.TemporaryDirectory(prefix="maand-hook-") as place, MemoryGateway(add_built_values(state, job)) as gateway:
        script = copy_job_and_sdk(job_dir, Path(place) / job, hook)
        occupy_semaphores(gateway, identity)
        token = gateway.begin(identity)
        command = [*choose_interpreter(script, job_dir, runtime or {}), script.name, *args]
        environment = environment_of(identity, state) | api_environment(gateway, token)
        ended = run_script(command, script.parent, environment, timeout)
        gateway.end(token)
        return HookTestReport(**ended, calls=tuple(gateway.calls), state=gateway.kv.content())


def add_built_values(state: MemoryState, job: str) -> MemoryState:
    """Add what build writes about the job, where the state does not say otherwise."""
    workers = ",".join(state.allocations)
    built = {
        "maand/bucket": {"bucket_id": BUCKET_ID},
        f"maand/job/{job}": {
            "name": job,
            "version": state.new_version,
            "workers": workers,
            "workers_length": str(len(state.allocations)),
            "rollout_order": workers,
            **{f"worker_{index}": worker for index, worker in enumerate(state.allocations)},
        },
    }
    names = {*built, *state.kv}
    return replace(state, kv={name: {**built.get(name, {}), **state.kv.get(name, {})} for name in names})


def copy_job_and_sdk(job_dir: Path, place: Path, hook: str) -> Path:
    """Copy the job and the SDK; return the hook's script."""
    shutil.copytree(job_dir, place, ignore=shutil.ignore_patterns(".venv", "venv", "node_modules", "__pycache__"))
    scripts = [place / "_hooks" / f"{hook}{suffix}" for suffix in SUFFIXES if (place / "_hooks" / f"{hook}{suffix}").is_file()]
    if len(scripts) != 1:
        found = ", ".join(path.name for path in sorted((place / "_hooks").glob("hook_*"))) or "none"
        raise HookTestError(f"{job_dir / '_hooks'} must hold exactly one of {hook}.py, .ts, .js; it has {found}")
    for file in SDK_FILES:
        shutil.copy(file, place / "_hooks")
    return scripts[0]


def choose_interpreter(script: Path, job_dir: Path, runtime: Mapping[str, str]) -> list[str]:
    """Choose the interpreter: the job's own virtual environment, else the one given, else python or bun from here."""
    if script.suffix == ".py":
        own = [job_dir / "_hooks" / name / "bin" / "python" for name in (".venv", "venv")]
        return [next((str(path) for path in own if path.exists()), runtime.get("python", sys.executable))]
    own_bun = job_dir / "_hooks" / "node_modules" / ".bin" / "bun"
    bun = str(own_bun) if own_bun.exists() else runtime.get("bun") or shutil.which("bun")
    if bun is None:
        raise HookTestError(f"{script.name} needs bun, which is not on PATH; install it, or `npm install bun` in _hooks")
    return [bun, "run"]


def environment_of(identity: Identity, state: MemoryState) -> dict[str, str]:
    """Return the environment of an invocation, as the executor gives it."""
    index = state.allocations.index(identity.worker)
    size = state.batch_size or len(state.allocations)
    batch = state.allocations[index // size * size :][:size]
    return {
        **{name: os.environ[name] for name in PASSED_THROUGH if name in os.environ},
        "ALLOCATION_ID": identity.allocation_id,
        "ALLOCATION_IP": identity.worker,
        "ALLOCATION_INDEX": str(index),
        "JOB": identity.job,
        "EVENT": identity.event,
        "HOOK": identity.hook,
        "DISABLED": "1" if identity.worker in state.disabled else "0",
        "CURRENT_VERSION": state.current_version,
        "NEW_VERSION": state.new_version,
        "BATCH_INDEX": str(index // size),
        "BATCH_COUNT": str(-(-len(state.allocations) // size)),
        "BATCH_ALLOCATIONS": ",".join(batch),
        "ROLLOUT_ORDER": ",".join(state.allocations),
        "ROLLOUT_ORDER_SOURCE": "default",
        "DEPLOY_PHASE": identity.event,
        "JOB_PATH": f"/opt/worker/{BUCKET_ID}/jobs/{identity.job}",
        "RUN_ID": str(uuid.UUID(int=0)),
        "BUCKET_ID": BUCKET_ID,
        **state.environment,
    }


def api_environment(gateway: MemoryGateway, token: str) -> dict[str, str]:
    """Return where and as whom the hook calls the API."""
    host, _, port = gateway.address.rpartition(":")
    return {"HOOK_API_HOST": host, "HOOK_API_PORT": port, TOKEN_NAME: token}


def occupy_semaphores(gateway: MemoryGateway, identity: Identity) -> None:
    """Let others hold the semaphores that the state says are held."""
    for name, holders in gateway.state.semaphores.items():
        for worker in holders:
            other = replace(identity, worker=worker, allocation_id=make_allocation_id(identity.job, worker))
            gateway.semaphores.request(other, f"state:{worker}", name, len(holders))


def make_allocation_id(job: str, worker: str) -> str:
    """Return the id that the allocation has in a bucket whose id is all zeros."""
    return str(uuid.uuid5(uuid.UUID(BUCKET_ID), f"{job}|{worker}"))


def run_script(command: Sequence[str], directory: Path, environment: Mapping[str, str], timeout: float) -> dict[str, Any]:
    """Run the script in a process group of its own. When it has ended, is late, or we are interrupted: end what is left."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:  # files: a daemon would keep pipes open
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        timed_out = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            end_processes(process, environment[TOKEN_NAME])
        return {
            "exit_code": process.returncode,
            "timed_out": timed_out,
            "stdout": read_text(stdout),
            "stderr": read_text(stderr),
        }


def end_processes(process: "subprocess.Popen[bytes]", token: str) -> None:
    """End the script, its group and whatever else carries its token, a daemon say: TERM, a moment, KILL."""
    try:
        signal_processes(process, token, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    finally:
        signal_processes(process, token, signal.SIGKILL)
        process.wait()


def signal_processes(process: "subprocess.Popen[bytes]", token: str, number: signal.Signals) -> None:
    """Send a signal to the script's group, and to all that were started with its token."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    for pid in find_carriers(token):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def find_carriers(token: str) -> list[int]:
    """Return the processes that were started with this token in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if token.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def read_text(file: IO[bytes]) -> str:
    """Return what was written to a file."""
    file.seek(0)
    return file.read().decode(errors="replace")
