"""Masking: no form of a secret gets through, nothing else is touched."""

import base64
import json
import secrets
import time
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_executor.masking import LineMasker, Masker, forms_of

SECRET = 'p@ss/w"ö rd+1'
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n  indented-line\nshort\n-----END KEY-----\n"


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower().replace("%c3%b6", "%c3%b6"),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
    ],
)
def test_every_form_of_a_secret_is_masked_wherever_it_stands(shown: str) -> None:
    masker = Masker([SECRET])
    assert masker.mask(shown) == "***"
    assert masker.mask(f"before {shown} after") == "before *** after"
    assert masker.mask(f"x{shown}{shown}y") == "x***y"


def test_base64_of_a_longer_text_around_the_secret_is_masked_too() -> None:
    masker = Masker(["hunter2secret"])
    for before in ("", "u", "us", "user:"):
        encoded = base64.b64encode(f"{before}hunter2secret\n".encode()).decode()
        assert "***" in masker.mask(encoded)
        assert not recovered(masker.mask(encoded), "hunter2secret")


def test_base64_in_lines_is_masked_line_by_line() -> None:
    secret = secrets.token_urlsafe(150)
    encoded = base64.encodebytes(secret.encode()).decode()
    assert set(Masker([secret]).mask(encoded).split()) == {"***"}


def test_every_line_of_a_value_of_several_lines_is_masked() -> None:
    masker = Masker([PEM])
    assert masker.mask("a MIIEvQIBADANBgkqhkiG9w0BAQEFAASC b") == "a *** b"
    assert masker.mask("> indented-line <") == "> *** <"
    assert masker.mask(json.dumps({"key": PEM})) == '{"key": "***"}'
    assert masker.mask(quote(PEM)) == "***"


def test_a_line_shorter_than_six_characters_stays_readable() -> None:
    assert Masker([PEM]).mask("short story") == "short story"


@pytest.mark.parametrize("value", ["", "a", "12345"])
def test_values_shorter_than_six_characters_are_not_masked(value: str) -> None:
    assert forms_of(value) == set()
    assert Masker([value]).mask(f"say {value}") == f"say {value}"


def test_six_characters_are_masked() -> None:
    assert Masker(["abcdef"]).mask("xabcdefx") == "x***x"


def test_the_longer_of_two_secrets_leaves_nothing_of_itself_behind() -> None:
    masker = Masker(["secret", "secret-and-more", "more-than-that"])
    assert masker.mask("secret-and-more-than-that!") == "***!"


def test_without_secrets_text_is_as_it_was() -> None:
    assert Masker().mask("anything at all") == "anything at all"


def test_printing_a_masker_shows_no_secret() -> None:
    assert "hunter2" not in repr(Masker(["hunter2secret"]))


PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters="*\n")


@given(
    values=st.lists(st.text(PLAIN, min_size=6, max_size=20), max_size=5),
    parts=st.lists(st.text(PLAIN, max_size=10), min_size=1, max_size=6),
    data=st.data(),
)
def test_whatever_surrounds_them_no_secret_is_left(values: list[str], parts: list[str], data: st.DataObject) -> None:
    text = "".join(part + (data.draw(st.sampled_from(values)) if values else "") for part in parts)
    masked = Masker(values).mask(text)
    assert not [value for value in values if value in masked]


@given(
    value=st.text(alphabet="abcXYZ019", min_size=6, max_size=30),
    before=st.text(alphabet="ab \t", max_size=40),
    after=st.text(alphabet="bc -", max_size=40),
    cuts=st.lists(st.integers(min_value=0, max_value=120), max_size=6),
)
def test_a_line_in_pieces_is_masked_as_the_whole_line(value: str, before: str, after: str, cuts: list[int]) -> None:
    masker, text = Masker([value]), before + value + after
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[start:end] for start, end in pairwise(places)] or [""]
    line = LineMasker()
    shown = "".join(line.feed(masker, piece, ends=number == len(pieces) - 1) for number, piece in enumerate(pieces))
    assert shown == masker.mask(text)


def test_a_secret_cut_in_two_is_masked_when_its_second_half_comes() -> None:
    masker, line = Masker(["hunter2secret"]), LineMasker()
    first = line.feed(masker, "x" * 100 + "hunter2", ends=False)
    second = line.feed(masker, "secret!", ends=True)
    assert "hunter" not in first
    assert first + second == "x" * 100 + "***!"


def test_a_thousand_secrets_are_looked_for_at_megabytes_a_second() -> None:
    masker = Masker([secrets.token_urlsafe(24) for _ in range(1_000)])
    text = secrets.token_hex(500_000)
    began = time.process_time()
    assert masker.mask(text) == text
    assert time.process_time() - began < 2


def recovered(masked: str, secret: str) -> bool:
    """Whether somebody who fills in the mask's place with anything reads most of the secret."""
    left = masked.replace("***", "")
    return any(base64.b64encode(secret[i : i + 6].encode()).decode().rstrip("=") in left for i in range(len(secret) - 5))
