"""`worker.json` and `jobs.json`: what a worker is and what is placed on it, for people and tools that look there.

Written before the first thing a deploy does on a worker, once a run.
"""

import asyncio
from collections import defaultdict

from maand_executor.rules.facts import Worker
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.worker_scripts import describe_worker, describe_worker_script
from maand_executor.ssh.errors import CommandNotStarted
from maand_executor.steps.context import RunContext
from maand_executor.steps.fleet import Fleet


class WorkerFiles:
    """Who has been described in this run."""

    def __init__(self, context: RunContext, fleet: Fleet) -> None:
        self._context = context
        self._fleet = fleet
        self._written: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def write(self, worker: Worker) -> None:
        """Have both files on the worker. Raises `SshError`; a worker that belongs to another bucket or is another one refuses."""
        async with self._locks[worker.name]:
            if worker.name not in self._written:
                await self._write(worker)
                self._written.add(worker.name)

    async def _write(self, worker: Worker) -> None:
        config = self._context.config
        command = RemoteCommand(
            script=describe_worker_script(config),
            stdin=describe_worker(config, worker, self._fleet.on_worker(worker.name)),
            sudo=config.use_sudo,
            timeout=self._context.settings.preflight_timeout,
            fence=self._context.fence,
            check_host=True,
        )
        result = await self._context.remote.run(worker, command)
        if not result.ok:
            said = result.stderr.decode(errors="replace").strip() or f"exit code {result.exit_code}"
            raise CommandNotStarted(worker.name, f"worker.json cannot be written: {said}")
