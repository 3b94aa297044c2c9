"""Masking: no form of a secret gets through, nothing else is touched."""

import base64
import json
import secrets
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_executor.rules import masking
from maand_executor.rules.masking import LineMasker, Masker, forms_of

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


@given(text=st.text(PLAIN, min_size=6, max_size=50), safe=st.sampled_from(["", "/", "!'()*~", " "]))
def test_percent_encoding_of_any_kind_is_masked(text: str, safe: str) -> None:
    encoded = quote(text, safe=safe).replace(" ", "+")
    masker = Masker([text])
    assert masker.mask(f"<{encoded}>") == "<***>"
    assert masker.mask(f"<{masking.lower_case_escapes(encoded)}>") == "<***>"


def test_what_is_learned_later_is_masked_beside_what_was_known() -> None:
    masker = Masker(["first-secret"])
    masker.learn(["second", "third-secret"])
    masker.learn(["second"])
    assert masker.mask("first-secret, second, third-secret, fourth-secret") == "***, ***, ***, fourth-secret"


@given(
    known=st.lists(st.text(PLAIN, min_size=6, max_size=20), min_size=1, max_size=5),
    part=st.text(PLAIN, max_size=10),
)
def test_learning_one_by_one_is_learning_all_at_once(known: list[str], part: str) -> None:
    text = part.join(known)
    one_by_one = Masker()
    for value in known:
        one_by_one.learn([value])
    assert one_by_one.mask(text) == Masker(known).mask(text)


def test_of_very_many_secrets_the_last_is_masked_like_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "MANY", 100)
    values = [secrets.token_urlsafe(24) for _ in range(200)]
    masker = Masker(values)
    for value in (*values[:3], *values[-3:]):
        assert masker.mask(f"before {value} after") == "before *** after"
        assert masker.mask(base64.b64encode(value.encode()).decode()) == "***"


MIB = 1024 * 1024


@pytest.fixture(scope="module")
def large() -> tuple[str, Masker]:
    """A value of 1 MiB in one line, as a keystore in base64 or a dump in JSON is."""
    value = json.dumps({"a/b é": secrets.token_urlsafe(MIB // 2), "c": ["/", secrets.token_hex(MIB // 8)]})
    return value, Masker([value])


@pytest.mark.parametrize(
    "shown",
    [
        str,
        json.dumps,
        quote,
        lambda value: quote(value, safe=""),
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: base64.encodebytes(value.encode()).decode(),
        lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
    ],
)
def test_a_value_of_a_mebibyte_is_masked_in_every_form(large: tuple[str, Masker], shown: Callable[[str], str]) -> None:
    value, masker = large
    masked = masker.mask(f"before {shown(value)} after")
    assert len(masked.replace("***", "").replace("\n", "")) < 200
    assert masked.startswith("before ")
    assert masked.endswith(" after")


def test_base64_lines_are_masked_where_a_program_puts_a_prefix_before_each() -> None:
    value = secrets.token_urlsafe(610)
    lines = base64.encodebytes(value.encode()).decode().split()
    joined = "\\n".join(lines)
    masker = Masker([value])
    assert masker.mask(f'"{joined}"') == '"' + "\\n".join(["***"] * len(lines)) + '"'
    assert [masker.mask(f"hook: {line}") for line in lines] == ["hook: ***"] * len(lines)


def test_a_large_value_keeps_back_nothing_of_a_line_that_does_not_look_like_it(large: tuple[str, Masker]) -> None:
    _, masker = large
    line = LineMasker()
    shown = line.feed(masker, "downloading layer 7 of 12 ", ends=False)
    assert shown == "downloading layer "


def test_a_large_value_in_pieces_is_masked(large: tuple[str, Masker]) -> None:
    value, masker = large
    text = f"before {value} after"
    pieces = [text[start : start + 65_536] for start in range(0, len(text), 65_536)]
    line = LineMasker()
    shown = "".join(line.feed(masker, piece, ends=number == len(pieces) - 1) for number, piece in enumerate(pieces))
    assert shown == "before *** after"


def test_a_masker_holds_no_secret_and_grows_with_the_lines_of_large_ones_only() -> None:
    tracemalloc.start()
    try:
        masker = Masker(secrets.token_urlsafe(3 * MIB // 4) for _ in range(3))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 12 * MIB, "three values of 1 MiB"
    assert masker.mask("x") == "x"


def test_twenty_thousand_secrets_are_learned_and_looked_for_fast_enough() -> None:
    began = time.process_time()
    masker = Masker(secrets.token_urlsafe(24) for _ in range(20_000))
    assert time.process_time() - began < 20
    began = time.process_time()
    masker.learn(["one-more-secret"])
    assert time.process_time() - began < 0.1
    text = "installing package foo into /usr/lib/foo, one-more-secret\n" * 10_000
    assert "one-more" not in masker.mask(text)
    assert time.process_time() - began < 5


def recovered(masked: str, secret: str) -> bool:
    """Whether somebody who fills in the mask's place with anything reads most of the secret."""
    left = masked.replace("***", "")
    return any(base64.b64encode(secret[i : i + 6].encode()).decode().rstrip("=") in left for i in range(len(secret) - 5))
