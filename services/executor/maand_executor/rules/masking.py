"""Masking: secret values, in any form they are likely to be printed in, become `***`. No IO.

A value of six characters and more is masked as it is, line by line when it has several, and in its base64, URL-encoded and
JSON-escaped forms. Base64 is also found inside the base64 of a longer text (`user:password`), by the digits that do not depend
on what stands around.

Hundreds of thousands of forms are looked for at once, also of values of a megabyte, so no form is kept: only its length and hash,
below its first six characters. Where these stand in a text, as many characters are hashed and compared. With few forms the text
is looked at in every fourth place only, and each form is entered below four groups of six. A regular expression of as many
alternatives tries them one after the other, which is a hundred times slower with 1,000 secrets.

Base64 in lines is most of what a large value becomes; its lines are hashes alone, looked up wherever 64 digits stand in a row.
"""

import base64
import json
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

MASK = "***"
SHORTEST = 6
"""Characters below which a value is not masked: it would be found in innocent words."""
STRIDE = 4
"""Every how many places a text is looked at; above this the table grows faster than the scan gets shorter."""
MANY = 200_000
"""Forms above which new ones are entered below one group each, at the price of speed: four take half a kilobyte a form."""
URL_SAFE = ("", "/", "!'()*~")
"""What encoders leave as it is: RFC 3986, `urllib.parse.quote`, JavaScript's `encodeURIComponent`."""
LEFT_BY_SOME = frozenset("".join(URL_SAFE)) - {"~"}
MOST_LINES = 500
"""Lines of one value up to which each is masked in all forms; of a longer one, as they are, and the value as a whole."""
BASE64_WIDTHS = (76, 64)
"""Line lengths of encoders: MIME and the `base64` command; PEM."""
LONGEST_PREFIX = 256
"""Characters that also are digits of base64 before a line of it: the name of a variable, a path."""
DIGITS_IN_A_ROW = re.compile(r"[A-Za-z0-9+/_=-]{64,}")
DIGITS_AT_THE_END = re.compile(r"[A-Za-z0-9+/_=-]+\Z")
TO_STANDARD = str.maketrans("-_", "+/")

Span = tuple[int, int]
Table = dict[str, tuple[int, ...]]
"""By six characters: length * STRIDE + offset of each form that has them at that offset."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What was found in a text: secrets, and from where on one may stand that ends behind the text."""

    spans: list[Span]
    open_from: int


class Masker:
    """Finds secret values in text. Learns more of them and forgets none; printing it shows nothing.

    May learn in one thread while texts are masked in others: whoever learned before finds what was learned.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._forms: set[int] = set()
        self._lines: set[int] = set()
        self._sparse: Table = {}
        self._dense: Table = {}
        self._codes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._learning = threading.Lock()
        self.learn(values)

    def __repr__(self) -> str:
        return "Masker(***)"

    def learn(self, values: Iterable[str]) -> None:
        """Mask these values from now on, too."""
        with self._learning:
            for value in values:
                for form in forms_of(value):
                    self._enter(form)
                self._lines.update(map(hash, base64_lines(value)))

    def mask(self, text: str) -> str:
        """Return the text with every occurrence replaced; occurrences that overlap or touch become one `***`."""
        return mask_spans(text, self.scan(text).spans)

    def scan(self, text: str) -> Scan:
        """Return where secrets stand, in order, those that overlap joined."""
        if not self._forms:
            return Scan(spans=[], open_from=len(text))
        found: list[Span] = []
        open_from = self._find_lines(text, found)
        for table, stride in ((self._sparse, STRIDE), (self._dense, 1)):
            if table:
                open_from = min(open_from, self._find_forms(text, table, stride, found))
        return Scan(spans=join_spans(found), open_from=max(open_from, 0))

    def _enter(self, form: str) -> None:
        known = hash(form)
        if known in self._forms:
            return
        few = len(self._forms) < MANY and len(form) >= SHORTEST + STRIDE - 1
        table = self._sparse if few else self._dense
        self._forms.add(known)
        for offset in range(STRIDE if few else 1):
            group, code = form[offset : offset + SHORTEST], len(form) * STRIDE + offset
            codes = table.get(group, ())
            if code not in codes:
                more = (*codes, code)
                table[group] = self._codes.setdefault(more, more)

    def _find_forms(self, text: str, table: Table, stride: int, found: list[Span]) -> int:
        """Add where forms stand; return from where on the text may hold the beginning of one."""
        forms, end_of_text = self._forms, len(text)
        # Of a form that begins before this, one of its groups stood wholly in the text at a place that is looked at. Of a later
        # one that place may be behind the end: nothing of it was seen, so the text from there on is kept back.
        open_from = end_of_text - SHORTEST - stride + 2
        for at in range(0, end_of_text - SHORTEST + 1, stride):
            for code in table.get(text[at : at + SHORTEST], ()):
                length, offset = divmod(code, STRIDE)
                start, end = at - offset, at - offset + length
                if end > end_of_text:
                    open_from = min(open_from, max(start, 0))
                elif start >= 0 and hash(text[start:end]) in forms:
                    found.append((start, end))
        return open_from

    def _find_lines(self, text: str, found: list[Span]) -> int:
        """Likewise for lines of base64."""
        if not self._lines:
            return len(text)
        for run in DIGITS_IN_A_ROW.finditer(text):
            found += (shift_span(span, run.start()) for span in self._lines_in(run[0].translate(TO_STANDARD)))
        at_the_end = DIGITS_AT_THE_END.search(text, max(len(text) - max(BASE64_WIDTHS) + 1, 0))
        return at_the_end.start() if at_the_end else len(text)

    def _lines_in(self, digits: str) -> Iterator[Span]:
        """Yield lines of base64 in a row of digits: one behind a prefix, several one behind the other."""
        at = seen_until = 0
        while at <= min(seen_until + LONGEST_PREFIX, len(digits) - min(BASE64_WIDTHS)):
            width = next((width for width in BASE64_WIDTHS if hash(digits[at : at + width]) in self._lines), 0)
            if width:
                seen_until = min(at + width, len(digits))
                yield at, seen_until
            at += width or 1


class LineMasker:
    """Masks one line that arrives in pieces, so that a secret cut in two by the split is still recognised.

    It keeps back the end of what it has seen, from where a secret may have begun, until the next piece shows what follows.
    """

    def __init__(self) -> None:
        self._kept = ""

    def feed(self, masker: Masker, text: str, *, ends: bool) -> str:
        """Return what can be shown after this piece."""
        text = self._kept + text
        scan = masker.scan(text)
        cut = len(text) if ends else cut_before_secret(scan.spans, scan.open_from)
        self._kept = text[cut:]
        return mask_spans(text[:cut], [span for span in scan.spans if span[1] <= cut])


def shift_span(span: Span, by: int) -> Span:
    """Return a span that was found in a part of the text."""
    return span[0] + by, span[1] + by


def cut_before_secret(spans: Iterable[Span], cut: int) -> int:
    """Move a cut before the secret it would tear."""
    return next((start for start, end in spans if start < cut < end), cut)


def mask_spans(text: str, spans: Iterable[Span]) -> str:
    """Put `***` in place of every span."""
    parts, shown = [], 0
    for start, end in spans:
        parts += [text[shown:start], MASK]
        shown = end
    return "".join((*parts, text[shown:]))


def join_spans(spans: Iterable[Span]) -> list[Span]:
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
    forms = lines_of_value(value)
    for text in encoded_texts(value):
        forms |= {*base64_forms(text.encode()), *url_forms(text), *json_forms(text)}
    return {form for form in forms if len(form) >= SHORTEST and "\n" not in form}


def lines_of_value(value: str) -> set[str]:
    """Return a value and its lines, with and without what is blank around them."""
    return {value, *value.splitlines(), *map(str.strip, value.splitlines())}


def encoded_texts(value: str) -> list[str]:
    """Return what of a value is masked in its encoded forms too: all of its lines, or the whole when they are too many."""
    lines = lines_of_value(value)
    return [text for text in (lines if len(lines) <= MOST_LINES else {value}) if len(text) >= SHORTEST]


def base64_lines(value: str) -> Iterator[str]:
    """Yield the full lines of the base64 of a value, in the standard digits; `forms_of` has what is shorter than a line."""
    for text in encoded_texts(value):
        alone = base64.b64encode(text.encode()).decode()
        for width in BASE64_WIDTHS:
            yield from (alone[start : start + width] for start in range(0, len(alone) - width + 1, width))


def base64_forms(data: bytes) -> Iterator[str]:
    """Yield the base64 of the value alone, its last line, and the digits it leaves inside that of a longer text."""
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        alone = alphabet(data).decode()
        yield alone
        yield alone.rstrip("=")
        for width in BASE64_WIDTHS:
            yield alone[len(alone) // width * width :]
        for before in range(3):
            yield inner_digits(alphabet(bytes(before) + data).decode(), before, len(data))


def inner_digits(encoded: str, before: int, length: int) -> str:
    """Return the base64 digits that depend on the value's bytes only, when `before` bytes stand ahead of it."""
    first = -(-before * 8 // 6)  # rounded up: a digit that shares bits with a byte before the value varies with that byte
    return encoded[first : (before + length) * 8 // 6]


def url_forms(text: str) -> Iterator[str]:
    """Yield the percent-encoded forms, with upper-case and lower-case digits. A text is encoded once: that is what takes time."""
    least = quote(text, safe="".join(LEFT_BY_SOME))
    for encoded, digits in ((least, "X"), (lower_case_escapes(least), "x")):
        for safe in URL_SAFE:
            form = encoded
            for one in LEFT_BY_SOME.difference(safe):
                form = form.replace(one, f"%{ord(one):{digits}}")
            yield form
            if not safe:
                yield form.replace("%20", "+")


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
