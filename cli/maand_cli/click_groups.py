"""How the command line is put together: lazily loaded groups, both spellings of every name, global flags everywhere.

A group is a table of name -> (where the command lives, one line of help). `--help` and completion read the table only; a
command's module is imported when the command is called.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from maand_cli.flags import GlobalOption, make_global_options
from maand_wire.nearest import nearest_name


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One command of a group: `module:attribute` and its line in the group's help."""

    target: str
    line: str

    def load(self) -> click.Command:
        """Import the module and return the command."""
        module, _, attribute = self.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


class MaandCommand(click.Command):
    """A command that also knows the global flags, and keeps what follows `--` for itself when it asks for it."""

    def __init__(self, *args: Any, keeps_rest: bool = False, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.keeps_rest = keeps_rest
        self.params.extend(make_global_options())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split off what follows `--` (see `rest_of`), then parse as Click does."""
        if self.keeps_rest and "--" in args:
            cut = args.index("--")
            ctx.meta["maand.rest"] = tuple(args[cut + 1 :])
            args = args[:cut]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the command's own options, then the global ones."""
        _format_options(self, ctx, formatter)


def rest_of(ctx: click.Context) -> tuple[str, ...]:
    """Return the arguments after `--`."""
    rest: tuple[str, ...] = ctx.meta.get("maand.rest", ())
    return rest


class LazyGroup(click.Group):
    """A group that loads a command's module when the command is called."""

    command_class = MaandCommand

    def __init__(self, *args: Any, table: Mapping[str, Entry] | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.table = dict(table or {})
        self.params.extend(make_global_options())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the primary names, in the table's order."""
        return [*self.table, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command by either spelling."""
        entry = self.table.get(cmd_name) or self.table.get(cmd_name.replace("-", "_"))
        if entry is None:
            return super().get_command(ctx, cmd_name) or super().get_command(ctx, cmd_name.replace("-", "_"))
        return entry.load()

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown name is answered with the nearest known one."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            near = nearest_name(name.replace("-", "_"), self.list_commands(ctx))
            raise NoSuchCommand(name, near, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        lines = [(name, entry.line) for name, entry in self.table.items()]
        lines += [(name, command.get_short_help_str(100)) for name, command in self.commands.items() if not command.hidden]
        if lines:
            with formatter.section("Commands"):
                formatter.write_dl(lines)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands first, then the options."""
        self.format_commands(ctx, formatter)
        _format_options(self, ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete command names from the table, importing none."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=entry.line) for name, entry in self.table.items() if name.startswith(incomplete)]
        if self.commands:
            found += [CompletionItem(name) for name in self.commands if name.startswith(incomplete)]
        return found if found and not incomplete.startswith("-") else click.Command.shell_complete(self, ctx, incomplete)


class NoSuchCommand(click.UsageError):
    """There is no such command."""

    def __init__(self, name: str, near: str | None, ctx: click.Context) -> None:
        super().__init__(f'no such command "{name}"', ctx)
        self.help = f'did you mean "{near}"?' if near else f"{ctx.command_path} --help lists them"


def maand_command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], MaandCommand]:
    """Declare a command of this command line."""
    return click.command(name, cls=MaandCommand, **attributes)


def _format_options(shown: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    own: list[tuple[str, str]] = []
    shared: list[tuple[str, str]] = []
    for param in shown.get_params(ctx):
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None:
            (shared if isinstance(param, GlobalOption) else own).append(record)
    for title, records in (("Options", own), ("Flags of every command", shared)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
