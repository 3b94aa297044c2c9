"""Names people typed: checked against what there is, with the nearest one in the error."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from maand_executor.errors import InvalidRequest


def known_names(kind: str, wanted: Iterable[str], known: Collection[str]) -> frozenset[str]:
    """Return the wanted names. Raises `InvalidRequest` naming the nearest known one when there is none of that name."""
    names = frozenset(wanted)
    for name in sorted(names - frozenset(known)):
        raise InvalidRequest(f'no {kind} is called "{name}"', help=nearest(name, known))
    return names


def nearest(name: str, known: Collection[str]) -> str:
    """Advise the nearest known name."""
    close = get_close_matches(name, sorted(known), n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known are: {', '.join(sorted(known)[:10])}" if known else ""
