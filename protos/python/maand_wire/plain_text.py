r"""Text that somebody else wrote, made plain: what a terminal would act on is shown as `\x1b`, and never sent.

Whatever comes in from a worker and becomes part of a message goes through `clean_message`; what is shown on a terminal goes
through `escape_controls` (`maand_cli.output.terminal`). Output that is stored and piped stays as it was written.
"""

import re

LONGEST_MESSAGE = 2_000
"""Characters of a message that came from elsewhere; more does not help whoever reads it."""

HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 controls, marks that turn the direction of writing or end a line, and halves of characters."""

COLOR = re.compile(r"\x1b\[[0-9;:]{0,64}m")
"""SGR, the only control sequence that changes nothing but the looks of the text behind it."""

LINE_ENDS = re.compile(r"\s*[\r\n]+\s*")


def escape_controls(text: str) -> str:
    r"""Return a text with every harmful character spelled out, as `\x1b` or `\u202e`; line ends and tabs too."""
    return HARMFUL.sub(spell_control, text)


def spell_control(match: re.Match[str]) -> str:
    r"""Spell out one character: `\n`, `\x1b`, `\u202e`."""
    return SHORT_SPELLINGS.get(match[0]) or (f"\\x{ord(match[0]):02x}" if match[0] <= "\xff" else f"\\u{ord(match[0]):04x}")


SHORT_SPELLINGS = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def clean_message(text: str, *, longest: int = LONGEST_MESSAGE) -> str:
    """Return a text as one line of at most so many characters.

    Colours go, line ends and tabs become blanks, other controls are spelled out.
    """
    line = LINE_ENDS.sub(" ", COLOR.sub("", text[: 4 * longest])).strip().replace("\t", " ")
    clean = escape_controls(line)
    return clean if len(clean) <= longest and len(text) <= 4 * longest else clean[: longest - 1] + "…"
