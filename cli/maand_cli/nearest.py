"""The nearest known name, for `did you mean`."""

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like `name`, or None when none does."""
    import difflib

    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return help for an unknown name: the nearest one, or the first few."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return f'did you mean "{near}"?'
    return f"known: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else ""
