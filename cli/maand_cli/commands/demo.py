"""`maand demo`."""

import click

from maand_cli.click_groups import command
from maand_cli.coroutines import acting
from maand_cli.flags import Flags


@command()
@click.option("--keep", is_flag=True, help="Leave the bucket; at a terminal, keep its workers until Ctrl-C.")
@acting
async def demo(flags: Flags, *, keep: bool) -> int:
    """Watch the whole system work: build, deploy, a rolling upgrade, a hook, a command, health.

    Three workers run as SSH servers inside this process, each in its own directory. Needs bash, make and rsync; no root.
    """
    del flags
    from maand_cli.errors import MissingPrerequisite

    try:
        from maand_cli.demo.story import tell_story
    except ModuleNotFoundError as error:
        raise MissingPrerequisite(f"the demo needs {error.name}", help="pip install 'maand[all]'") from error
    return await tell_story(keep=keep)
