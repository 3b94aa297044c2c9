"""`maand version`."""

from maand_cli import __version__
from maand_cli.click_groups import command
from maand_cli.coroutines import with_flags
from maand_cli.flags import Flags


@command()
@with_flags
def version(flags: Flags) -> int:
    """Print the version of this command line."""
    if flags.is_human:
        print(__version__)
    else:
        from maand_cli.output.rows import show_values

        show_values(flags, "version", {"version": __version__})
    return 0
