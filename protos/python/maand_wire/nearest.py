"""The nearest known name, for `did you mean`: the same offer in files, requests and on the command line.

Imports the standard library only: rules of the catalog use it, as the one module of this package they may.
"""

from collections.abc import Iterable

FEW = 8
"""Known names that are listed when none is near."""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like `name`, whatever its case, or None when none does."""
    import difflib  # here, because the command line starts often and seldom meets an unknown name

    by_lower_case = {each.lower(): each for each in sorted(known)}
    found = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ask whether the nearest known name was meant; empty when none is near."""
    near = nearest_name(name, known)
    return f'did you mean "{near}"?' if near else ""


def nearest_or_known(name: str, known: Iterable[str]) -> str:
    """Ask whether the nearest known name was meant; when none is near, say which there are: the first few."""
    names = sorted(known)
    listed = f"known: {', '.join(names[:FEW])}{', …' if len(names) > FEW else ''}" if names else ""
    return did_you_mean(name, names) or listed
