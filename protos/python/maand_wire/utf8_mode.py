"""Names of files and what people type are UTF-8 for maand, whatever the locale: entry points see to that first of all."""

import os
import sys


def ensure_utf8_mode() -> None:
    """Begin this program anew in Python's UTF-8 mode where the locale, or PYTHONUTF8=0, chose another encoding.

    Python decides at its start how it reads arguments and names of files, so nothing but another start changes it. Programs that
    this one starts begin in that mode too.
    """
    if sys.getfilesystemencoding().lower() == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same program again
