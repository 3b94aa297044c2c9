"""Having templates rendered by a process of its own (`render_process`): what a template costs is not paid by the services.

    TemplateWork ──▶ process ──▶ rendered file, rendered file, …        one job at a time; kept for the next one
                        │ an error, silence, death
                        ▼
                      killed; the next job gets a new one

A thread would not do: nobody can end it, and its memory is that of catalog and executor.
"""

import asyncio
import pickle
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol

from maand_executor.content.templates import RenderedFile, TemplateSubject, TemplateWork
from maand_executor.errors import TemplateError

PROGRAM = "maand_executor.content.render_process"
LENGTH_BYTES = 8
LONGEST_WAIT = timedelta(seconds=60)
"""For one rendered file. The process gives up by itself after 10 s of CPU; this is for what it cannot interrupt."""
LARGEST_JOB_BYTES = 256 * 1024 * 1024
"""Of all rendered files of one job: they are in memory until they are compared and copied."""


class RendersTemplates(Protocol):
    """Renders the templates of jobs."""

    async def render(self, work: TemplateWork) -> Mapping[str, Sequence[RenderedFile]]:
        """Return the rendered files by allocation id. Raises `TemplateError`."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


class TemplateRenderer:
    """One per executor. Its process is started when the first job with templates comes."""

    def __init__(self, *, longest_wait: timedelta = LONGEST_WAIT) -> None:
        self._longest_wait = longest_wait
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def render(self, work: TemplateWork) -> Mapping[str, Sequence[RenderedFile]]:
        """Return the rendered files by allocation id. Raises `TemplateError`, and OSError when no process can be started."""
        async with self._turn:
            process = await self._running_process()
            try:
                return await self._exchange(process, work)
            except BaseException:  # what it is doing now is not known; cancelled: it is to stop
                await self._end_process()
                raise

    async def close(self) -> None:
        """End the process."""
        await self._end_process()

    async def _running_process(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", PROGRAM, stdin=pipe, stdout=pipe, start_new_session=True
            )
        return self._process

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()  # closes the pipes, too

    async def _exchange(self, process: asyncio.subprocess.Process, work: TemplateWork) -> Mapping[str, Sequence[RenderedFile]]:
        assert process.stdin
        with suppress(ConnectionError):  # it died: told when its answer is read
            process.stdin.write(frame(work))
            await process.stdin.drain()
        rendered: dict[str, list[RenderedFile]] = {one.allocation.allocation_id: [] for one in work.subjects}
        total = 0
        for subject in work.subjects:
            for path in work.modes:
                file = await self._read_file(process, work, path, subject)
                rendered[subject.allocation.allocation_id].append(file)
                total += len(file.data)
                if total > LARGEST_JOB_BYTES:
                    words = (
                        f"the rendered files of this job are larger than {LARGEST_JOB_BYTES >> 20} MiB on all workers together"
                    )
                    raise failed(words, work, path, subject)
        return rendered

    async def _read_file(
        self, process: asyncio.subprocess.Process, work: TemplateWork, path: str, subject: TemplateSubject
    ) -> RenderedFile:
        """Return the next file, or raise what the process says of it."""
        assert process.stdout
        try:
            async with asyncio.timeout(self._longest_wait.total_seconds()):
                reply = await read_frame(process.stdout)
        except TimeoutError as error:
            raise failed(f"was not rendered within {self._longest_wait.total_seconds():g} s", work, path, subject) from error
        except asyncio.IncompleteReadError as error:
            raise failed(f"the process that rendered it {how_it_ended(await process.wait())}", work, path, subject) from error
        if isinstance(reply, RenderedFile):
            return reply
        raise TemplateError(**reply)


def failed(words: str, work: TemplateWork, path: str, subject: TemplateSubject) -> TemplateError:
    """Name the template that was being rendered; its line is not known."""
    return TemplateError(words, job=work.job, path=path, line=0, worker=subject.worker.name)


def how_it_ended(return_code: int) -> str:
    """Say how a process ended, for a sentence."""
    if return_code < 0:
        return f"was killed ({signal.Signals(-return_code).name}), perhaps for its memory"
    return f"ended by itself with exit code {return_code}; the executor's log knows more"


def frame(value: Any) -> bytes:
    """Return a value as it goes through a pipe."""
    data = pickle.dumps(value)
    return len(data).to_bytes(LENGTH_BYTES) + data


async def read_frame(reader: asyncio.StreamReader) -> Any:
    """Read one value. Raises IncompleteReadError when the other end has gone."""
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES))
    return pickle.loads(await reader.readexactly(length))  # noqa: S301 - from a process of ours, that runs as we do
