"""The story that `maand demo` tells: every line is a command a person could type, and is printed before it runs."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maand_cli.demo.workers import DemoWorker, find_missing_programs, serve_workers
from maand_cli.errors import CliError, MissingPrerequisite
from maand_cli.output.text import format_duration

CONTENT = Path(__file__).parent / "bucket"

SETTINGS = """
# Added by the demo: workers without root.
ssh_user = "demo"
use_sudo = false
worker_root = "worker"
"""

COMMAND_SECONDS = 60.0


class DemoFailed(CliError):
    """A command of the story did not end as it should; what it said is above."""

    code = "demo_failed"


@dataclass(kw_only=True)
class Stage:
    """Where the story plays, and what was done so far."""

    bucket: Path
    began: float = field(default_factory=time.monotonic)
    commands: int = 0

    def tell(self, text: str) -> None:
        """Say what comes next."""
        print(f"\n# {text}", flush=True)

    async def maand(self, *args: str) -> None:
        """Print a command, run it, and insist that it succeeds."""
        print(f"$ maand {quote_arguments(args)}", flush=True)
        process = await asyncio.create_subprocess_exec(*own_program(), *args, cwd=self.bucket, env=command_environment())
        code = await wait_for_command(process)
        self.commands += 1
        if code != 0:
            raise DemoFailed(
                f"maand {quote_arguments(args)} ended with exit code {code}",
                help="`maand demo --keep` leaves the bucket to look around in",
            )

    async def ask(self, *args: str) -> Any:
        """Run a reading command quietly and return its JSON document."""
        process = await asyncio.create_subprocess_exec(
            *own_program(), *args, "-o", "json", cwd=self.bucket, env=command_environment(), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
        return json.loads(out)


async def tell_story(*, keep: bool) -> int:
    """Tell the whole story; return 0 when everything went as told."""
    check_programs()
    clean_up_at_sigterm()
    place = Path(tempfile.mkdtemp(prefix="maand-demo-"))
    stage = Stage(bucket=place / "bucket")
    stage.bucket.mkdir()
    async with AsyncExitStack() as stack:
        if not keep:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
        stack.push_async_callback(stop_demo_services, stage)
        await make_demo_bucket(stage)
        keys = stage.bucket / "secrets" / "worker.key.pub"
        workers = await stack.enter_async_context(serve_workers(place / "workers", keys, uuid.uuid4().hex))
        fill_demo_bucket(stage.bucket, workers, with_bun=shutil.which("bun") is not None)
        await run_story(stage, workers)
        await check_and_sum_up(stage, workers)
        if keep:
            await keep_workers_serving(stage)
    return 0


def clean_up_at_sigterm() -> None:
    """Let SIGTERM end the story as Ctrl-C does: with nothing left behind."""
    story = asyncio.current_task()
    if story is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, story.cancel)


def check_programs() -> None:
    """Raise MissingPrerequisite for the first program this machine lacks."""
    for name, how in find_missing_programs().items():
        raise MissingPrerequisite(f"the demo needs {name}, which is not installed", help=how)


async def make_demo_bucket(stage: Stage) -> None:
    """Make the bucket."""
    stage.tell("A bucket holds one fleet: settings, workspace, keys.")
    await stage.maand("init", "-q")


def fill_demo_bucket(bucket: Path, workers: Sequence[DemoWorker], *, with_bun: bool) -> None:
    """Put the demo's settings, workers and jobs into the bucket."""
    conf = bucket / "maand.conf"
    conf.write_text(conf.read_text() + SETTINGS)
    listed = [
        {"host": worker.host, "ssh_port": worker.port, "labels": ["api", "database"] if first else ["api"]}
        for first, worker in ((worker is workers[0], worker) for worker in workers)
    ]
    (bucket / "workspace" / "workers.json").write_text(json.dumps(listed, indent=2) + "\n")
    shutil.copytree(
        CONTENT / "jobs", bucket / "workspace" / "jobs", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    if not with_bun:
        remove_typescript_hook(bucket / "workspace" / "jobs" / "api")


def remove_typescript_hook(job: Path) -> None:
    """Take the TypeScript hook out where no Bun runs it."""
    (job / "_hooks" / "hook_report.ts").unlink()
    manifest = json.loads((job / "manifest.json").read_text())
    del manifest["hooks"]["hook_report"]
    (job / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


async def run_story(stage: Stage, workers: Sequence[DemoWorker]) -> None:
    """Run the story's commands."""
    stage.tell(f"Three workers serve SSH inside this process: {', '.join(f'{one.host}:{one.port}' for one in workers)}.")
    stage.tell("Take in the workspace: two jobs, database and api; a hook of api demands one of database.")
    await stage.maand("build")
    stage.tell("Pin the workers' host keys.")
    await stage.maand("worker", "trust", "--yes")
    stage.tell("Deploy: database first, then api; hooks make a secret and migrate before anything is copied.")
    await stage.maand("deploy")
    stage.tell("Again: nothing is to be done.")
    await stage.maand("deploy")
    stage.tell("Change a file and the version: a rolling upgrade, two workers, then one, each batch behind a health gate.")
    edit_api_job(stage.bucket)
    await stage.maand("deploy", "--build")
    stage.tell("Run a hook by hand, on every allocation.")
    await stage.maand("hooks", "hook_migrate", "api", "--", "--dry-run")
    stage.tell("Run a command everywhere, two workers at once.")
    await stage.maand("run_command", 'echo "$WORKER_IP says: $(cat jobs/api/greeting.txt)"', "-c", "2")
    stage.tell("Is everything well?")
    await stage.maand("health_check")
    await stage.maand("cat", "deployments")


def edit_api_job(bucket: Path) -> None:
    """Edit the api job as a person would."""
    job = bucket / "workspace" / "jobs" / "api"
    (job / "greeting.txt").write_text("hello from version 1.1.0\n")
    manifest = job / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"1.0.0"', '"1.1.0"'))


async def check_and_sum_up(stage: Stage, workers: Sequence[DemoWorker]) -> None:
    """Check how things stand and say what happened."""
    allocations = await stage.ask("cat", "allocations")
    runs = await stage.ask("runs", "list", "--limit", "50")
    variables = {entry["key"]: entry["value"] for entry in await stage.ask("kv", "list", "vars/job/api")}
    wrong = [one for one in allocations if one["state"] != "promoted" or one["new_version"] != one["current_version"]]
    if wrong or len(allocations) != len(workers) + 1:
        raise DemoFailed(f"not everything is promoted: {wrong}", help="`maand demo --keep` leaves the bucket to look around in")
    print("\nWhat happened")
    print(f"  {len(workers)} workers, {len(allocations)} allocations, all promoted; api runs 1.1.0 everywhere")
    print(f"  {len(runs)} runs: {', '.join(run['kind'] for run in reversed(runs))}")
    print(f"  hooks migrated {variables.get('migrations', '?')} times under one semaphore, with one secret made once")
    if "reported_by" in variables:
        print(f"  a TypeScript hook reported: {variables['reported_by']}")
    print(f"  {stage.commands} commands in {format_duration(time.monotonic() - stage.began)}, no root, nothing left running")


async def keep_workers_serving(stage: Stage) -> None:
    """Leave the bucket; at a terminal, keep the workers until Ctrl-C."""
    print(f"\nThe bucket is kept: {stage.bucket}")
    if not sys.stdin.isatty():
        print("Its workers end with the demo.")
        return
    print("Its workers serve until you press Ctrl-C here. In another terminal:")
    print(f"  cd {stage.bucket} && maand cat allocations")
    with suppress(asyncio.CancelledError):  # Ctrl-C is how this ends
        await asyncio.Event().wait()


async def stop_demo_services(stage: Stage) -> None:
    """Stop the bucket's services, whatever happened before."""
    process = await asyncio.create_subprocess_exec(
        *own_program(), "services", "stop", "-q", cwd=stage.bucket, env=command_environment(), stderr=asyncio.subprocess.DEVNULL
    )
    await wait_for_command(process)


async def wait_for_command(process: asyncio.subprocess.Process) -> int:
    """Wait for a command; end it when it takes too long or this program is interrupted."""
    try:
        return await asyncio.wait_for(process.wait(), COMMAND_SECONDS)
    except (TimeoutError, asyncio.CancelledError):
        process.kill()
        await process.wait()
        raise


def own_program() -> list[str]:
    """Return what runs the command line that is running now."""
    return [sys.executable, "-m", "maand_cli"]


def command_environment() -> dict[str, str]:
    """Return the environment of the story's commands: no settings of another bucket, and this Python first."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("MAAND_") and name not in ("RUN_ID", "BUCKET_ID")
    }
    return {
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        "MAAND_IDLE_SECONDS": "120",
    }


def quote_arguments(args: Sequence[str]) -> str:
    """Write arguments as a person would type them."""
    import shlex

    return " ".join(shlex.quote(arg) for arg in args)
