"""Finding Bun for tests of TypeScript hooks."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]

PLACES = (
    ".tools/node_modules/@oven/bun-linux-x64/bin/bun",
    ".tools/node_modules/@oven/bun-linux-aarch64/bin/bun",
)
"""Where `make setup` puts it."""


def find_bun() -> Path:
    """Return the Bun to test with: the one named by MAAND_TEST_BUN, the one of `make setup`, or the one on PATH."""
    named = os.environ.get("MAAND_TEST_BUN")
    candidates = [Path(named)] if named else [ROOT / place for place in PLACES]
    on_path = shutil.which("bun")
    if on_path and not named:
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError("Bun is needed for tests of TypeScript hooks: run `make setup`, or set MAAND_TEST_BUN")
