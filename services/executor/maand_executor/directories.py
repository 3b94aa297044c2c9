"""Directories of an executor that nobody else may look into."""

from pathlib import Path


def make_private(directory: Path) -> None:
    """Make a directory that only this user may look into."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
