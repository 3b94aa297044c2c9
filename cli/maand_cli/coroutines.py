"""Commands as coroutines: what Click calls is a plain function that runs them to their end."""

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from maand_cli.flags import flags_of

PATIENCE_SECONDS = 1.0
"""How long a command that is done waits for a collector that does not answer."""


def runs_coroutine(act: Callable[..., Awaitable[int | None]]) -> Callable[..., int | None]:
    """Give the coroutine function its flags first, and run it."""

    @click.pass_context
    @functools.wraps(act)
    def run(ctx: click.Context, /, **arguments: Any) -> int | None:
        import asyncio
        import os

        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log lines are not for people

        async def main() -> int | None:
            return await act(flags_of(ctx), **arguments)

        try:
            with trace_command(ctx.command_path):
                return asyncio.run(main())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    return run


def takes_flags(act: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a plain function its flags first."""

    @click.pass_context
    @functools.wraps(act)
    def run(ctx: click.Context, /, **arguments: Any) -> int | None:
        return act(flags_of(ctx), **arguments)

    return run


@contextmanager
def trace_command(command: str) -> Iterator[None]:
    """Do a command as the beginning of a trace, where traces are wanted: named after the command, without its arguments."""
    from maand_wire.tracing import make_tracer, root_span

    tracer = make_tracer("maand", patience_seconds=PATIENCE_SECONDS)
    try:
        with root_span(tracer, command):
            yield
    finally:
        if tracer is not None:
            tracer.close()
