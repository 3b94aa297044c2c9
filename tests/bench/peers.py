"""Programs that others use for the same work, in a virtual environment of the bench outside this repository.

It is made at first use, in `$XDG_CACHE_HOME/maand-bench/venv`, with pip. What cannot be had is told and left out.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

PACKAGES = {"ansible": "ansible-core", "pyinfra": "pyinfra", "pssh": "parallel-ssh"}


def directory() -> Path:
    """Return where the peers live."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maand-bench" / "venv"


@cache
def program(name: str) -> str | None:
    """Return the path of a program of the peers (`ansible`, `pyinfra`, `python`), or None after having said that it is absent."""
    install()
    path = directory() / "bin" / name
    if path.exists():
        return str(path)
    print(f"  absent: {name} could not be installed; the bench goes on without it", flush=True)
    return None


@cache
def has(module: str) -> bool:
    """Tell whether the peers' python can import a module, having said so when it cannot."""
    install()
    python = directory() / "bin" / "python"
    found = (
        python.exists() and subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True).returncode == 0
    )
    if not found:
        print(f"  absent: {PACKAGES.get(module, module)} could not be installed; the bench goes on without it", flush=True)
    return found


@cache
def install() -> None:
    """Make the virtual environment, one package at a time, so that one that cannot be had leaves the others."""
    done = directory() / ".installed"
    if done.exists():
        return
    print(f"  installing {', '.join(PACKAGES.values())} into {directory()}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", directory()], check=False)
    pip = [str(directory() / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    codes = [subprocess.run([*pip, package], check=False).returncode for package in PACKAGES.values()]
    if not any(codes):
        done.touch()
