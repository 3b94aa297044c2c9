"""Options that several commands share."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from maand_cli.errors import MissingPrerequisite, Usage


def split_list(values: Iterable[str], *, read_stdin: Callable[[], str]) -> tuple[str, ...]:
    """Flatten list arguments, keeping the first occurrence of each item.

    `a,b` is two items; `@hosts` reads the file, `-` reads standard input: one item a line or comma-separated, `#` begins a
    comment. Raises OSError when a file cannot be read.
    """
    items: dict[str, None] = {}
    for value in values:
        for item in _items(_text(value, read_stdin)):
            items.setdefault(item)
    return tuple(items)


def _text(value: str, read_stdin: Callable[[], str]) -> str:
    if value == "-":
        return read_stdin()
    if value.startswith("@"):
        return Path(value[1:]).read_text()
    return value


def _items(text: str) -> Iterable[str]:
    for line in text.splitlines():
        for item in line.partition("#")[0].split(","):
            if item.strip():
                yield item.strip()


def refuse_empty_value(value: str, *, source: str, remedy: str) -> None:
    """Raise MissingPrerequisite for a value that was read and is empty, but for line ends: an unset variable, a broken pipe.

    Storing one would destroy the value before without a word; `remedy` says how to do it on purpose.
    """
    if not value.strip("\r\n"):
        raise MissingPrerequisite(f"{source} is empty: nothing was stored", help=remedy)


def list_option(
    *names: str,
    help: str,  # noqa: A002 - Click's word
    complete: Callable[..., Any] | None = None,
    spell: Callable[[str], str] = str,
) -> Callable[[Any], Any]:
    """Declare a list: commas, repetition, `@file`, `-`. Left out it means all; given, it names at least one.

    `spell` gives an item the spelling by which it is known.
    """

    def spelled(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(spell, _split(ctx, param, values))))

    return click.option(*names, multiple=True, callback=spelled, metavar="LIST", help=help, shell_complete=complete)


def spell_worker(text: str) -> str:
    """Return a worker's name as builds spell it, without brackets around an IPv6 address. What is no host stays as it is."""
    from maand_wire.hosts import is_link_local_with_zone, normalize_host  # here: only commands that name workers need it

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if is_link_local_with_zone(bare):
        raise Usage(f"workers cannot be named by link-local addresses: {text}", help="give the worker a routable address")
    return normalize_host(bare) or text


def _split(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Split a list; one that turns out empty is refused, for it would mean everything: `-w "$UNSET"`, an empty file."""
    items = split_list(values, read_stdin=sys.stdin.read)
    if values and not items and not ctx.resilient_parsing:
        raise Usage(f"the list of {param.opts[0]} is empty", help=f"name at least one, or leave {param.opts[0]} out to mean all")
    return items


def complete_jobs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete job names from the workspace's directories: no service is asked."""
    jobs = _workspace(ctx) / "jobs"
    names = [path.name for path in jobs.iterdir() if path.is_dir()] if jobs.is_dir() else []
    return _completed(names, incomplete)


def complete_workers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete workers from workers.json."""
    import json

    try:
        workers = json.loads((_workspace(ctx) / "workers.json").read_text())
        names = [worker["host"] for worker in workers]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return _completed(names, incomplete)


def complete_labels(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete labels from workers.json."""
    import json

    try:
        workers = json.loads((_workspace(ctx) / "workers.json").read_text())
        labels = [str(label) for worker in workers for label in worker.get("labels", ())]
    except (OSError, ValueError, AttributeError, TypeError):
        return []
    return _completed(labels, incomplete)


def complete_words(words: Iterable[str]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Complete from a list of words."""
    known = list(words)
    return lambda _ctx, _param, incomplete: _completed(known, incomplete)


RUN_STATES = ("pending", "running", "succeeded", "failed", "cancelled", "interrupted")
RUN_KINDS = ("build", "deploy", "hooks", "run_command", "health_check", "job_control", "worker_probe", "gc")
"""Words of the contract's enums, which completion does not load; a test compares them."""


def complete_cli_hooks(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete hooks that some job registers for `cli`."""
    return _completed([name for _, name in _cli_hooks(ctx)], incomplete)


def complete_cli_hook_jobs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete jobs that register the hook that was given before for `cli`."""
    return _completed([job for job, name in _cli_hooks(ctx) if name == ctx.params.get("name")], incomplete)


def _cli_hooks(ctx: click.Context) -> Iterable[tuple[str, str]]:
    import json

    for manifest in (_workspace(ctx) / "jobs").glob("*/manifest.json"):
        try:
            hooks = json.loads(manifest.read_text())["hooks"]
            found = [name for name, settings in hooks.items() if "cli" in settings["executed_on"]]
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            continue
        yield from ((manifest.parent.name, name) for name in found)


def complete_hooks(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete hook names from the scripts in the workspace."""
    scripts = (_workspace(ctx) / "jobs").glob("*/_hooks/hook_*")
    return _completed([script.stem for script in scripts if script.is_file()], incomplete)


def _completed(names: list[str], incomplete: str) -> list[str]:
    """Complete the last item of a comma-separated list."""
    done, comma, last = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in sorted(set(names)) if name.startswith(last)]


def _workspace(ctx: click.Context) -> Path:
    import os

    from maand_cli.errors import NoBucket
    from maand_cli.flags import flags_of
    from maand_cli.local.bucket import find_bucket

    try:
        return find_bucket(flags_of(ctx).bucket, environment=os.environ, start=Path.cwd()).workspace
    except NoBucket:
        return Path("/nonexistent")


jobs_option = list_option("--jobs", "-j", help="Only these jobs.", complete=complete_jobs)
workers_option = list_option("--workers", "-w", help="Only these workers.", complete=complete_workers, spell=spell_worker)
detach_option = click.option("--detach", is_flag=True, help="Print the run's id and leave; `maand runs watch` attaches.")
keep_going_option = click.option("--keep-going", is_flag=True, help="Run later batches even when one failed.")
keep_workdir_option = click.option("--keep-workdir", is_flag=True, help="Keep the private directories of hooks.")
