"""`maand completion bash|zsh|fish`."""

import click

from maand_cli.click_groups import command
from maand_cli.coroutines import with_flags
from maand_cli.flags import Flags

HOW = {
    "bash": 'add to ~/.bashrc:  eval "$(maand completion bash)"',
    "zsh": 'add to ~/.zshrc:  eval "$(maand completion zsh)"',
    "fish": "save as ~/.config/fish/completions/maand.fish",
}


@command()
@click.argument("shell", type=click.Choice(tuple(HOW)))
@with_flags
def completion(flags: Flags, *, shell: str) -> int:
    """Print the completion script of a shell. It completes commands, flags, jobs, workers and hooks, asking no service."""
    from click.shell_completion import get_completion_class

    from maand_cli.output.rows import say
    from maand_cli.root import root

    kind = get_completion_class(shell)
    if kind is None:
        return 1
    print(kind(root, {}, "maand", "_MAAND_COMPLETE").source())
    say(flags, f"# {HOW[shell]}")
    return 0
