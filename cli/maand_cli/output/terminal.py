r"""What goes to standard output and standard error: harmless on a terminal, as it was written anywhere else.

| Written with   | For                                        | On a terminal                                                 |
|----------------|--------------------------------------------|---------------------------------------------------------------|
| `write_line`   | one line of maand's own words and names    | every control character is spelled out: `\x1b`, `\n`          |
| `write_text`   | a value or a text that may have many lines | likewise, line ends stay                                      |
| `write_output` | one line that a hook or a command said     | colours stay and end with the line; of what carriage returns  |
|                |                                            | write over, the last is shown, behind its own prefix          |

Texts come from workers, hooks and other people: what they write can move the cursor, clear the screen or set the clipboard, and
so paint over what others said. No other module prints texts for people.
"""

import re
import sys
from typing import TextIO

from maand_wire.plain_text import COLOR, HARMFUL, spell_control

PLAIN = "\x1b[0m"
RED = "\x1b[1;31m"

BLANK = re.compile(rf"(?:\s|{COLOR.pattern})*")


def wants_color(choice: str, stream: TextIO) -> bool:
    """Whether a stream is shown in colour: as `--color` says, else on a terminal where NO_COLOR is not set."""
    import os

    if choice != "auto":
        return choice == "always"
    return stream.isatty() and not os.environ.get("NO_COLOR")


def write_line(text: str, to: TextIO | None = None, *, red: int = 0, flush: bool = False) -> None:
    """Write one line, its first characters in red."""
    stream = to or sys.stdout
    mark, rest = (spell_controls(part) if stream.isatty() else part for part in (text[:red], text[red:]))
    print(f"{RED}{mark}{PLAIN}{rest}" if red else rest, file=stream, flush=flush)


def write_text(text: str, to: TextIO | None = None, *, end: str = "\n", flush: bool = False) -> None:
    """Write a text of any number of lines."""
    stream = to or sys.stdout
    shown = "\n".join(map(spell_controls, text.split("\n"))) if stream.isatty() else text
    print(shown, end=end, file=stream, flush=flush)


def write_output(text: str, to: TextIO | None = None, *, own: int, color: str, flush: bool = False) -> None:
    """Write a line that a hook or command said; the first `own` characters are maand's, and stay. `color` as `--color` says."""
    stream = to or sys.stdout
    shown = format_output(text, own=own, color=wants_color(color, stream)) if stream.isatty() else text
    print(shown, file=stream, flush=flush)


def spell_controls(text: str) -> str:
    """Return a line with its control characters spelled out; tabs stay, they only go on in their line."""
    return HARMFUL.sub(lambda found: "\t" if found[0] == "\t" else spell_control(found), text)


def format_output(text: str, *, own: int = 0, color: bool) -> str:
    """Return a line as a terminal may have it: nothing in it acts on more than itself.

    Colours are kept where `color` is, and ended; the first `own` characters cannot be written over.
    """
    said = keep_last_written(text[own:])
    parts, colors = COLOR.split(said), COLOR.findall(said) if color else []
    shown = spell_controls(parts[0])
    for position, part in enumerate(parts[1:]):
        shown += (colors[position] if colors else "") + spell_controls(part)
    return spell_controls(text[:own]) + shown + (PLAIN if colors else "")


def keep_last_written(text: str) -> str:
    """Return what carriage returns leave of a line: the last part that says something, in the colour that was set before it."""
    if "\r" not in text:
        return text
    parts = text.split("\r")
    last = next((index for index in reversed(range(len(parts))) if not BLANK.fullmatch(parts[index])), 0)
    return "".join(COLOR.findall("\r".join(parts[:last]))) + parts[last]
