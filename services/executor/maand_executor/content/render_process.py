"""`python -m maand_executor.content.render_process`: renders what `renderer` sends, until nobody sends any more.

It has limits that only a process can have: of memory, where Python then says which line wanted more; of CPU for each file; and
where the kernel has to choose a process to kill for want of memory, it is this one. It ends with the executor.
"""

import ctypes
import pickle
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from maand_executor.content.renderer import LENGTH_BYTES, frame
from maand_executor.content.templates import TemplateWork
from maand_executor.errors import TemplateError

MEMORY_BYTES = 1024 * 1024 * 1024
"""Address space of the process. It begins with a tenth of that; 16 MiB of output take a few times 16 MiB on their way."""
CPU_SECONDS = 10
"""Of one rendered file, which takes milliseconds."""
PR_SET_PDEATHSIG = 1
FIRST_TO_BE_KILLED = "1000"


class TooSlow(Exception):
    """A template computes for too long. Let it compute less."""


def main() -> None:
    """Render until standard input ends."""
    limit_this_process()
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while (work := read_work(source)) is not None:
        for reply in render_timed(work):
            target.write(frame(reply))
            target.flush()


def limit_this_process() -> None:
    """Set what the process may have, and that it ends with who started it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard), hard))
    with suppress(OSError):  # a system without
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_BE_KILLED)
    signal.signal(signal.SIGPROF, raise_too_slow)


def raise_too_slow(_number: int, _frame: FrameType | None) -> None:
    """Interrupt a template; what it is doing is in the traceback."""
    raise TooSlow(f"takes longer than {CPU_SECONDS} s to render")


def read_work(source: BinaryIO) -> TemplateWork | None:
    """Read what is to be rendered next. None = nothing any more."""
    length = source.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    work: TemplateWork = pickle.loads(source.read(int.from_bytes(length)))  # noqa: S301 - from the executor that started this
    return work


def render_timed(work: TemplateWork) -> Iterator[Any]:
    """Yield each rendered file, or once what is wrong, as arguments of `TemplateError`."""
    files = work.render()
    while True:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS, 1)  # again and again: Jinja swallows what is raised while it compiles
        try:
            file = next(files, None)
        except TemplateError as error:
            facts = error.facts
            yield {
                "message": error.reason,
                "job": facts["job"],
                "path": facts["path"],
                "line": int(facts["line"]),
                "worker": facts["worker"],
            }
            return
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if file is None:
            return
        yield file


if __name__ == "__main__":
    main()
