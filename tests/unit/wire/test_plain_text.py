"""Text from elsewhere: nothing in it that a terminal acts on, never longer than asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_wire.plain_text import HARMFUL, LONGEST_MESSAGE, clean_message, escape_controls

CASES = {
    "title and screen cleared": ("\x1b]0;pwn\x07\x1b[2Jevil", r"\x1b]0;pwn\x07\x1b[2Jevil"),
    "an innocent colour": ("\x1b[1;31mrsync: no\x1b[0m space", "rsync: no space"),
    "C1, which some terminals act on": ("\x9b2J\x85evil", r"\x9b2J\x85evil"),
    "bidirectional marks": ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),
    "several lines": ("first\r\n  second\n\nthird\n", "first second third"),
    "half a character": ("\ud800", r"\ud800"),
    "text of other scripts stays": ("naïve Größe 漢字 🎉", "naïve Größe 漢字 🎉"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_message_is_one_line_without_controls(case: str) -> None:
    text, clean = CASES[case]
    assert clean_message(text) == clean


@given(st.text(st.characters(categories=["Cc", "Cf", "Cs", "L", "N", "Zl", "Zp"]), max_size=50))
def test_no_control_is_left_whatever_comes_in(text: str) -> None:
    assert not HARMFUL.search(clean_message(text))
    assert not HARMFUL.search(escape_controls(text))


@pytest.mark.parametrize(
    "text", ["x" * 10_000_000, "\x1b" * 10_000_000, "\x1b[31mx" * 1_000_000], ids=["text", "escapes", "colours"]
)
def test_a_message_without_end_is_cut_and_says_so(text: str) -> None:
    clean = clean_message(text)
    assert len(clean) <= LONGEST_MESSAGE
    assert clean.endswith("…")
