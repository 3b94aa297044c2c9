"""The tree of commands."""

import click

from maand_cli import __version__
from maand_cli.click_groups import Entry, LazyGroup, MaandCommand


def _at(module: str, attribute: str, line: str) -> Entry:
    return Entry(target=f"maand_cli.commands.{module}:{attribute}", line=line)


COMMANDS = {
    "init": _at("init", "init", "Make a bucket here; keeps everything that is there."),
    "build": _at("deploy", "build", "Take in the workspace: place jobs, issue certificates, run post_build hooks."),
    "deploy": _at("deploy", "deploy", "Bring the fleet to what was built, in safe batches."),
    "hooks": _at("hooks", "hooks", "Run a hook by hand; `hooks test` runs one without a fleet."),
    "health_check": _at("maintenance", "health_check", "Check workers and jobs."),
    "run_command": _at("run_command", "run_command", "Run a shell command on workers."),
    "job": _at("job", "job", "Start, stop, restart, run, status, create."),
    "worker": _at("worker", "worker", "List, ping, facts, trust."),
    "gc": _at("maintenance", "gc", "Delete what was removed and stopped, and old history."),
    "cat": _at("cat", "cat", "Show what was built: workers, jobs, allocations, deployments, hooks, ports, certs, kv."),
    "kv": _at("kv", "kv", "Read and write variables and their history."),
    "secret": _at("secret", "secret", "Set, list, reveal and rotate secrets."),
    "semaphore": _at("semaphore", "semaphore", "Show who holds and who waits; release by force."),
    "runs": _at("runs", "runs", "List, show, watch, cancel and resume runs."),
    "logs": _at("logs", "logs", "Print the output of a run."),
    "info": _at("about", "info", "Tell about this bucket and its services."),
    "context": _at("context", "context", "Name clusters and choose which one commands speak to."),
    "services": _at("services", "services", "Start, stop and look at the local services."),
    "schema": _at("about", "schema", "Print the JSON Schema of a user file."),
    "demo": _at("about", "demo", "Watch the whole system work, on workers inside this process."),
    "completion": _at("about", "completion", "Print the completion script of a shell."),
    "version": _at("about", "version", "Print the version."),
}


HOOKS_TEST = _at("hooks", "hooks_test", "Run one hook here, without a fleet.")


class Root(LazyGroup):
    """The root command; `hooks test …` is its own command beside `hooks NAME …`."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Tell `hooks test` from a hook's name: hook names begin with `hook_`."""
        if args[:2] == ["hooks", "test"]:
            return "hooks test", HOOKS_TEST.load(), args[2:]
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        print(__version__)
        ctx.exit()


root = Root(
    name="maand",
    table=COMMANDS,
    help="Agentless orchestrator for Linux fleets: jobs on SSH workers, rolled out in safe batches, with hooks.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
    params=[
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
        )
    ],
)

__all__ = ["COMMANDS", "MaandCommand", "root"]
