"""Secret text as a value: whoever prints it, logs it or meets it in a traceback sees `***`."""

from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Plaintext:
    """A decrypted secret. `reveal()` is the only way to its text, so that every use is easy to find."""

    _text: str

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__
