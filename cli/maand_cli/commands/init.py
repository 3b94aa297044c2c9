"""`maand init`."""

import os
from pathlib import Path

from maand_cli.click_groups import maand_command
from maand_cli.coroutines import takes_flags
from maand_cli.flags import Flags


@maand_command()
@takes_flags
def init(flags: Flags) -> int:
    """Make a bucket in the current directory (or --bucket DIR): settings, keys, certificate authority, an example workers.json.

    May be repeated: the bucket's id, CA, keys and everything you wrote stay.
    """
    from maand_cli.local.new_bucket import make_bucket
    from maand_cli.output.rows import print_note, show_values
    from maand_cli.output.terminal import write_line

    named = os.environ.get("MAAND_BUCKET")
    directory = (flags.bucket or (Path(named) if named else Path.cwd())).absolute()
    made = make_bucket(directory)
    if not flags.is_human:
        show_values(
            flags,
            "bucket",
            {
                "bucket_id": made.bucket_id,
                "path": str(directory),
                "made": made.made,
                "kept": made.kept,
                "warnings": made.warnings,
            },
        )
        return 0
    write_line(str(directory))
    print_note(flags, f"bucket {made.bucket_id} {'made' if 'maand.conf' in made.made else 'is complete'}")
    for warning in made.warnings:
        print_note(flags, f"warning: {warning}")
    for step in describe_next_steps(directory, made.ssh_key):
        print_note(flags, step)
    return 0


def describe_next_steps(directory: Path, ssh_key: str) -> list[str]:
    """Say what to do next."""
    public_key = directory / "secrets" / f"{ssh_key}.pub" if ssh_key else "a public key of your SSH agent (ssh-add -L)"
    return [
        "next:",
        f"  1. put {public_key} into authorized_keys of the SSH user on every worker",
        "  2. list the workers in workspace/workers.json",
        "  3. maand job create hello --selectors worker",
        "  4. maand build && maand worker trust && maand deploy",
    ]
