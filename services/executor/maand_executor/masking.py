"""Masking: secret values, in any form they are likely to be printed in, become `***`. No IO.

A value of six characters and more is masked as it is, line by line when it has several, and in its base64, URL-encoded and
JSON-escaped forms. Base64 is also found inside the base64 of a longer text (`user:password`), by the digits that do not depend
on what stands around.

Thousands of forms are looked for at once: every form is at least six characters long, so whatever occurs shows one of its first
six-character groups at some place that is a multiple of `stride` = shortest form - 5. Only there the text is looked at. A regular
expression of as many alternatives tries them one after the other, which is a hundred times slower with 1,000 secrets.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 6
"""Characters below which a value is not masked: it would be found in innocent words."""
LONGEST_STRIDE = 4
"""Above this the table grows faster than the scan gets shorter."""
URL_SAFE = ("", "/", "!'()*~")
"""What encoders leave as it is: RFC 3986, `urllib.parse.quote`, JavaScript's `encodeURIComponent`."""
MOST_LINES = 500
"""Lines of one value up to which each is masked in all forms; of a longer one, as they are, and the value as a whole."""
BASE64_WIDTHS = (64, 76)
"""Line lengths of encoders: PEM; MIME and the `base64` command."""

Span = tuple[int, int]


class Masker:
    """Finds secret values in text. Immutable; printing it shows nothing."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = sorted({form for value in values for form in forms_of(value)})
        self._stride = min(min(map(len, forms), default=SHORTEST) - SHORTEST + 1, LONGEST_STRIDE)
        self.longest = max(map(len, forms), default=0)
        """Length of the longest form: what may have to be seen together to be recognised."""
        self._groups: dict[str, list[tuple[str, int]]] = {}
        for form in forms:
            for offset in range(self._stride):
                self._groups.setdefault(form[offset : offset + SHORTEST], []).append((form, offset))

    def __repr__(self) -> str:
        return "Masker(***)"

    def mask(self, text: str) -> str:
        """Return the text with every occurrence replaced; occurrences that overlap or touch become one `***`."""
        return replace(text, self.spans(text))

    def spans(self, text: str) -> list[Span]:
        """Return where secrets stand, in order, those that overlap joined."""
        if not self._groups:
            return []
        return joined(self._occurrences(text))

    def _occurrences(self, text: str) -> Iterator[Span]:
        groups = self._groups
        for at in range(0, len(text) - SHORTEST + 1, self._stride):
            for form, offset in groups.get(text[at : at + SHORTEST], ()):
                if at >= offset and text.startswith(form, at - offset):
                    yield at - offset, at - offset + len(form)


class LineMasker:
    """Masks one line that arrives in pieces, so that a secret cut in two by the split is still recognised.

    It keeps back the end of what it has seen, as long as the longest secret, until the next piece shows what follows.
    """

    def __init__(self) -> None:
        self._kept = ""

    def feed(self, masker: Masker, text: str, *, ends: bool) -> str:
        """Return what can be shown after this piece."""
        text = self._kept + text
        spans = masker.spans(text)
        cut = len(text) if ends else quiet_place(spans, len(text) - masker.longest + 1)
        self._kept = text[cut:]
        return replace(text[:cut], [span for span in spans if span[1] <= cut])


def quiet_place(spans: Iterable[Span], cut: int) -> int:
    """Move a cut before the secret it would tear."""
    cut = max(cut, 0)
    return next((start for start, end in spans if start < cut < end), cut)


def replace(text: str, spans: Iterable[Span]) -> str:
    """Put `***` in place of every span."""
    parts, shown = [], 0
    for start, end in spans:
        parts += [text[shown:start], MASK]
        shown = end
    return "".join((*parts, text[shown:]))


def joined(spans: Iterable[Span]) -> list[Span]:
    """Sort spans and join those that overlap or touch."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def forms_of(value: str) -> set[str]:
    """Return every form of a secret value that is to be masked, none shorter than six characters."""
    lines = {value, *value.splitlines(), *map(str.strip, value.splitlines())}
    forms = set(lines)
    for text in lines if len(lines) <= MOST_LINES else {value}:
        if len(text) >= SHORTEST:
            forms |= {*base64_forms(text.encode()), *url_forms(text), *json_forms(text)}
    return {form for form in forms if len(form) >= SHORTEST and "\n" not in form}


def base64_forms(data: bytes) -> Iterator[str]:
    """Yield the base64 of the value alone, whole and in lines, and the digits it leaves inside that of a longer text."""
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        alone = alphabet(data).decode()
        yield alone
        yield alone.rstrip("=")
        for width in BASE64_WIDTHS:
            yield from (alone[start : start + width] for start in range(0, len(alone), width))
        for before in range(3):
            yield inner_digits(alphabet(bytes(before) + data).decode(), before, len(data))


def inner_digits(encoded: str, before: int, length: int) -> str:
    """Return the base64 digits that depend on the value's bytes only, when `before` bytes stand ahead of it."""
    first = -(-before * 8 // 6)
    return encoded[first : (before + length) * 8 // 6]


def url_forms(text: str) -> Iterator[str]:
    """Yield the percent-encoded forms, with upper-case and lower-case digits."""
    for encoded in (*(quote(text, safe=safe) for safe in URL_SAFE), quote_plus(text)):
        yield encoded
        yield lower_case_escapes(encoded)


def lower_case_escapes(encoded: str) -> str:
    """Return `%2F` as `%2f`, letters of the text untouched."""
    first, *others = encoded.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in others)])


def json_forms(text: str) -> Iterator[str]:
    """Yield the text as it stands between the quotes of JSON, in the ways encoders differ."""
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield escaped.replace("/", "\\/")
