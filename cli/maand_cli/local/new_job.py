"""The folder of a new job: a manifest and a Makefile that say what belongs where."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from maand_cli.errors import MissingPrerequisite, Usage

JOB_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

MAKEFILE = """\
# Runs on the worker, in the job's directory there.
# JOB, ALLOCATION_IP, ALLOCATION_INDEX, CURRENT_VERSION and NEW_VERSION are in the environment.
.PHONY: start stop restart reload status

start:
	@echo "$(JOB) started"

stop:
	@echo "$(JOB) stopped"

restart: stop start

reload: restart

status:
	@echo "$(JOB) on $(ALLOCATION_IP)"
"""


def make_job(workspace: Path, name: str, selectors: Sequence[str]) -> Path:
    """Make the folder; return its path. Raises Usage for a bad name, MissingPrerequisite when it exists."""
    if not JOB_NAME.fullmatch(name):
        raise Usage(
            f'"{name}" is no job name', help="lower-case letters, digits, - and _, at most 63, beginning with a letter or digit"
        )
    directory = workspace / "jobs" / name
    if directory.exists():
        raise MissingPrerequisite(f"job {name} exists: {directory}", help="edit it, or choose another name")
    (directory / "_hooks").mkdir(parents=True)
    manifest = {"version": "0.1.0", "selectors": [selector.lower() for selector in selectors] or [name]}
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (directory / "Makefile").write_text(MAKEFILE)
    return directory
