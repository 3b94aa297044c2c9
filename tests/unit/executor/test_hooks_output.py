"""Lines out of bytes: of any length, in any pieces, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_executor.rules.output_lines import LAST_LINE_LENGTH, LAST_LINES, LineSplitter, Tail, tail_lines


def lines_of(data: bytes, *, chunk: int = 7, limit: int = 64 * 1024) -> list[str]:
    splitter = LineSplitter(limit)
    lines, partial = [], ""
    pieces = [piece for start in range(0, len(data), chunk) for piece in splitter.feed(data[start : start + chunk])]
    for piece in [*pieces, *splitter.finish()]:
        partial += piece.text
        if piece.ends:
            lines += partial.split("\n")
            partial = ""
    return lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one\n", ["one"]),
        (b"one\ntwo", ["one", "two"]),
        (b"\n\n", ["", ""]),
        (b"windows\r\nunix\n", ["windows", "unix"]),
        (b"progress 1%\rprogress 2%\n", ["progress 1%\rprogress 2%"]),
        ("ö€😀\n".encode(), ["ö€😀"]),
        (b"\xff\xfe broken \x00 text", ["\ufffd\ufffd broken \ufffd text"]),
    ],
)
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_lines_come_out_as_they_were_written_in_whatever_chunks(data: bytes, lines: list[str], chunk: int) -> None:
    assert lines_of(data, chunk=chunk) == lines


@given(text=st.text(), chunk=st.integers(1, 50), limit=st.integers(8, 40))
def test_no_text_is_lost_by_splitting_long_lines(text: str, chunk: int, limit: int) -> None:
    text = text.replace("\0", "").replace("\r", "")
    data = text.encode(errors="replace")
    assert "\n".join(lines_of(data, chunk=chunk, limit=limit)) == data.decode().removesuffix("\n")


@given(data=st.binary(max_size=500), chunk=st.integers(1, 50))
def test_no_piece_is_longer_than_the_limit_whatever_the_bytes(data: bytes, chunk: int) -> None:
    splitter = LineSplitter(16)
    pieces = [piece for start in range(0, len(data), chunk) for piece in splitter.feed(data[start : start + chunk])]
    assert all(len(piece.text) <= 16 for piece in [*pieces, *splitter.finish()])


def test_a_long_line_is_split_and_says_where_it_ends() -> None:
    pieces = [*LineSplitter(4).feed(b"abcdefghij\nk\n")]
    assert [(piece.text, piece.ends) for piece in pieces] == [("abcd", False), ("efgh", False), ("ij\nk", True)]


def test_the_tail_remembers_the_end_from_the_beginning_of_a_line() -> None:
    tail = Tail(limit=20)
    for number in range(1_000):
        tail.feed(f"line {number}\n".encode())
    assert tail.text().splitlines() == ["line 998", "line 999"]


def test_the_tail_of_little_is_all_of_it() -> None:
    tail = Tail(limit=20)
    tail.feed(b"all\nof it")
    assert tail.text() == "all\nof it"


def test_one_endless_line_has_an_end_too() -> None:
    tail = Tail(limit=20)
    tail.feed(b"x" * 1_000 + b"end")
    assert tail.text() == "x" * 17 + "end"


def test_last_lines_are_few_and_short() -> None:
    text = "\n".join([*map(str, range(100)), "y" * 5_000 + "END", "", ""])
    lines = tail_lines(text)
    assert len(lines) == LAST_LINES
    assert lines[-1].endswith("END")
    assert len(lines[-1]) == LAST_LINE_LENGTH + 1
