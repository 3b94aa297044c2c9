"""Flags that every command knows, before and after its name: what is given later wins, `-v` adds up."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click


@dataclass(kw_only=True)
class Flags:
    """The global flags as given so far; filled while Click parses, read by commands."""

    bucket: Path | None = None
    context: str = ""
    output: str = "human"
    quiet: bool = False
    verbose: int = 0
    color: str = "auto"
    yes: bool = False
    timeout: float | None = None
    lock_timeout: float | None = None
    header_printed: bool = False
    """Whether the first line of `-o jsonl` is out; an error before it prints one."""

    @property
    def is_human(self) -> bool:
        """Whether a person reads the output."""
        return self.output == "human"

    @property
    def timeout_seconds(self) -> int:
        """Limit for a run as the contract counts it: whole seconds, 0 = none."""
        return _whole_seconds(self.timeout)

    @property
    def lock_timeout_seconds(self) -> int:
        """How long a run may wait for the bucket, whole seconds, 0 = fail at once."""
        return _whole_seconds(self.lock_timeout)


def _whole_seconds(value: float | None) -> int:
    return 0 if value is None else max(1, round(value)) if value > 0 else 0


class DurationType(click.ParamType[float]):
    """Seconds, or a number with `s`, `m` or `h`: `90`, `90s`, `5m`, `1.5h`."""

    name = "duration"
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}  # noqa: RUF012 - a constant table

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        text = str(value).strip().lower()
        unit = self.units.get(text[-1:], 1.0)
        try:
            seconds = float(text.rstrip("smh")) * unit
        except ValueError:
            self.fail(f"{value!r} is no duration; write 90, 90s, 5m or 1h", param, ctx)
        if not 0 <= seconds < 10**8:
            self.fail(f"{value!r} is out of range", param, ctx)
        return seconds


def flags_of(ctx: click.Context) -> Flags:
    """Return the flags of this invocation, one value for the whole chain of commands."""
    root = ctx.find_root()
    if not isinstance(root.obj, Flags):
        root.obj = Flags()
    flags: Flags = root.obj
    return flags


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value:
            setattr(flags_of(ctx), name, value)

    return store


def _store_verbose(ctx: click.Context, _param: click.Parameter, value: int) -> None:
    flags_of(ctx).verbose += value or 0


def _store_duration(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(ctx: click.Context, _param: click.Parameter, value: float | None) -> None:
        if value is not None:
            setattr(flags_of(ctx), name, value)

    return store


def make_global_options() -> list[click.Parameter]:
    """Make the options anew: each command owns its own instances."""
    return [
        _option(
            "--bucket",
            type=click.Path(path_type=Path, file_okay=False),
            callback=_store("bucket"),
            metavar="DIR",
            help="Bucket directory; else MAAND_BUCKET, else the nearest maand.conf upwards.",
        ),
        _option(
            "--context",
            callback=_store("context"),
            metavar="NAME",
            help="Cluster to speak to, or `local`; else MAAND_CONTEXT, else the one chosen with `maand context use`.",
        ),
        _option(
            "-o", "--output", type=click.Choice(["human", "json", "jsonl"]), callback=_store("output"), help="Form of the output."
        ),
        _option("-q", "--quiet", is_flag=True, callback=_store("quiet"), help="Only data and errors."),
        _option("-v", "--verbose", count=True, callback=_store_verbose, help="More; -vv shows tracebacks."),
        _option("--color", type=click.Choice(["auto", "always", "never"]), callback=_store("color"), help="When to use colour."),
        _option("--yes", is_flag=True, callback=_store("yes"), help="Answer every question with yes."),
        _option(
            "--timeout",
            type=DurationType(),
            callback=_store_duration("timeout"),
            metavar="TIME",
            help="Limit for the whole run, for example 90s or 10m.",
        ),
        _option(
            "--lock-timeout",
            type=DurationType(),
            callback=_store_duration("lock_timeout"),
            metavar="TIME",
            help="How long to wait for the bucket; else fail at once.",
        ),
    ]


class GlobalOption(click.Option):
    """An option that is listed apart from the command's own."""


def _option(*names: str, **attributes: Any) -> GlobalOption:
    return GlobalOption(list(names), expose_value=False, **attributes)
