"""The hook SDK: `maand.py` and `maand.ts`, files that are put beside a hook, and an in-memory gateway to test hooks with.

`SDK_FILES` is all that the executor needs. `hook_runner` runs one hook without maand; `pytest_plugin` does so inside pytest.
"""

from pathlib import Path

SDK_DIRECTORY = Path(__file__).parent

SDK_FILES: tuple[Path, ...] = (SDK_DIRECTORY / "maand.py", SDK_DIRECTORY / "maand.ts")
"""The files that go beside a hook, under these names."""
