"""Enum values of the contracts as people and programs read them: lower-case words, `RUN_KIND_HEALTH_CHECK` <-> `health_check`.

Every service keeps words (in its tables, in `maand … -o json`), the wire carries numbers: this is the one place that turns them.
"""

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper  # the name that generated stubs use

Number = TypeVar("Number", bound=int)


def enum_word(enum: "_EnumTypeWrapper[Number]", number: int) -> str:
    """Return the word of a value: empty for unspecified, the number itself for one that a newer peer added."""
    return word_in(enum.DESCRIPTOR, number)


def enum_number(enum: "_EnumTypeWrapper[Number]", word: str) -> Number:
    """Return the value of a word; unspecified for an empty one. Raises ValueError for a word that the enum does not have."""
    first: str = enum.DESCRIPTOR.values_by_number[0].name
    return enum.Value(first.removesuffix("UNSPECIFIED") + (word.upper() or "UNSPECIFIED"))


def word_in(descriptor: Any, number: int) -> str:
    """Return the word of a value of the enum that a descriptor describes, as `enum_word` does."""
    found = descriptor.values_by_number.get(number)
    if found is None:
        return str(number)
    return "" if number == 0 else found.name.removeprefix(descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")).lower()
