"""Private keys as files: who else may read them."""

import stat
from pathlib import Path


def others_may_read(path: Path) -> bool:
    """Whether a file is open to its group or to everybody, as OpenSSH would refuse a key; False for what is not there."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False
