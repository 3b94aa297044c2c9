"""Between the contracts' messages and the frozen dataclasses that services keep: by field names, worked out once for each pair.

    to_hook = message_reader(Hook, job_pb2.Hook)               message -> value: every field of the dataclass is read
    hook_message = message_writer(job_pb2.Hook, Hook)          value -> message: every field that both have is written
    message_of_words(job_pb2.HealthCheck, {"timeout_seconds": 5, …})      what a table keeps as JSON -> message

A field of the same name is taken over: lists become tuples, maps dicts, times aware datetimes, nested messages nested
dataclasses, enum values members of the same name (or lower-case words, where the dataclass has a `str`). A `timedelta` called `x`
is the message's `x_seconds`. Unset becomes None where the dataclass says `| None`, else the default. What differs is given
by name, as a function of the whole message or value.

A dataclass field without any source is an error when the module is imported, so a field that is added to one side only is noticed
by the first test.
"""

import dataclasses
import enum
import types
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from maand_wire.enums import word_in

Value = TypeVar("Value")
Made = TypeVar("Made", bound=Message)
Convert = Callable[[Any], Any]


def message_reader(kind: type[Value], message: type[Message], **differing: Convert) -> Callable[[Any], Value]:
    """Return the function that makes a `kind` from a `message`. Raises TypeError when a field of `kind` has no source."""
    hints = get_type_hints(kind)
    if unknown := differing.keys() - hints.keys():
        raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
    sources: dict[str, Convert] = {}
    for part in dataclasses.fields(kind):  # type: ignore[arg-type]  # a dataclass, mypy has no name for its type
        source = differing.get(part.name) or _read(message.DESCRIPTOR, part, hints[part.name])
        if source is None:
            raise TypeError(f"{message.__name__} has nothing for {kind.__name__}.{part.name}")
        sources[part.name] = source
    steps = tuple(sources.items())
    return lambda given: kind(**{name: source(given) for name, source in steps})


def message_writer(message: type[Made], kind: type[Any], **differing: Convert) -> Callable[[Any], Made]:
    """Return the function that makes a `message` from a `kind`. Raises TypeError for a name that the message does not have."""
    hints = get_type_hints(kind)
    known = message.DESCRIPTOR.fields_by_name
    if unknown := differing.keys() - known.keys():
        raise TypeError(f"{message.__name__} has no field {', '.join(sorted(unknown))}")
    sources = dict(differing)
    for part in dataclasses.fields(kind):
        name = f"{part.name}_seconds" if _bare(hints[part.name]) is timedelta else part.name
        if name in known and name not in differing:
            sources[name] = _write(known[name], part.name, _bare(hints[part.name]))
    steps = tuple(sources.items())
    return lambda given: message(**{name: source(given) for name, source in steps})


def message_of_words(message: type[Made], words: Mapping[str, Any]) -> Made:
    """Make a message from what JSON keeps of one: fields by their names, enum values as words; None is unset.

    Raises ValueError for a name or a word that the message does not have.
    """
    return message(**{name: _of_words(message.DESCRIPTOR.fields_by_name.get(name), value) for name, value in words.items()})


def seconds_of(duration: timedelta | None) -> float:
    """Return a duration as the wire carries it; 0 for none."""
    return duration.total_seconds() if duration else 0


def _read(descriptor: Any, part: "dataclasses.Field[Any]", hint: Any) -> Convert | None:
    bare, name = _bare(hint), part.name
    if bare is timedelta:
        return _duration_reader(name, optional=bare is not hint) if f"{name}_seconds" in descriptor.fields_by_name else None
    field = descriptor.fields_by_name.get(name)
    if field is None:
        return None
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return lambda given: dict(getattr(given, name))
    if field.is_repeated:
        return _many_reader(field, name, get_args(bare)[0] if get_args(bare) else Any)
    convert = _one_reader(field, bare, part.default)
    if field.message_type is None:
        return (lambda given: getattr(given, name)) if convert is None else (lambda given: convert(getattr(given, name)))
    if convert is None:
        return lambda given: getattr(given, name)
    return lambda given: convert(getattr(given, name)) if given.HasField(name) else None


def _duration_reader(name: str, *, optional: bool) -> Convert:
    def read(given: Any) -> timedelta | None:
        seconds = getattr(given, f"{name}_seconds")
        return timedelta(seconds=seconds) if seconds or not optional else None

    return read


def _many_reader(field: Any, name: str, item: Any) -> Convert:
    convert = _one_reader(field, item, dataclasses.MISSING)
    return (
        (lambda given: tuple(getattr(given, name)))
        if convert is None
        else (lambda given: tuple(map(convert, getattr(given, name))))
    )


def _one_reader(field: Any, hint: Any, default: Any) -> Convert | None:
    """Return how one value is read; None = as it is."""
    if field.enum_type is not None:
        return _enum_reader(field.enum_type, hint, default)
    if hint is datetime:
        return lambda stamp: stamp.ToDatetime(tzinfo=UTC)
    if field.message_type is not None and dataclasses.is_dataclass(hint):
        return message_reader(hint, field.message_type._concrete_class)  # type: ignore[arg-type]  # noqa: SLF001 - the class behind it
    return None


def _enum_reader(descriptor: Any, hint: Any, default: Any) -> Convert:
    if not (isinstance(hint, type) and issubclass(hint, enum.Enum)):
        return lambda number: word_in(descriptor, number)
    members = {number: hint.__members__.get(word_in(descriptor, number).upper()) for number in descriptor.values_by_number}
    unset = default if isinstance(default, hint) else None

    def read(number: int) -> Any:
        """Return the member; the field's default for one that is not set, or that only a newer peer knows."""
        return members.get(number) or unset

    return read


def _write(field: Any, name: str, hint: Any) -> Convert:
    if hint is timedelta:
        whole = field.type not in (field.TYPE_DOUBLE, field.TYPE_FLOAT)
        return lambda given: int(seconds_of(getattr(given, name))) if whole else seconds_of(getattr(given, name))
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return lambda given: dict(getattr(given, name))
    convert = _one_writer(field, (get_args(hint) or (Any,))[0] if field.is_repeated else hint)
    if convert is None:
        return lambda given: getattr(given, name)
    if field.is_repeated:
        return lambda given: map(convert, getattr(given, name))
    return lambda given: None if getattr(given, name) is None else convert(getattr(given, name))


def _one_writer(field: Any, hint: Any) -> Convert | None:
    if field.enum_type is not None:
        numbers = {word_in(field.enum_type, number): number for number in field.enum_type.values_by_number}
        return lambda member: numbers[member.name.lower() if isinstance(member, enum.Enum) else member.replace("-", "_")]
    if hint is datetime:
        return _stamp
    if field.message_type is not None and dataclasses.is_dataclass(hint):
        return message_writer(field.message_type._concrete_class, hint)  # type: ignore[arg-type]  # noqa: SLF001 - the class behind it
    return None


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _of_words(field: Any, value: Any) -> Any:
    if field is None or value is None:
        return value  # of a field that is not there the message itself complains
    if field.is_repeated and field.message_type is not None and not field.message_type.GetOptions().map_entry:
        return [message_of_words(field.message_type._concrete_class, one) for one in value]  # noqa: SLF001 - the class behind it
    if field.message_type is not None and not field.is_repeated:
        return message_of_words(field.message_type._concrete_class, value)  # noqa: SLF001 - likewise
    if field.enum_type is not None and not field.is_repeated:
        return _number_of_word(field.enum_type, value)
    return value


def _number_of_word(descriptor: Any, word: str) -> int:
    name = str(descriptor.values_by_number[0].name).removesuffix("UNSPECIFIED") + word.upper().replace("-", "_")
    if name not in descriptor.values_by_name:
        raise ValueError(f'{descriptor.name} has no value "{word}"')
    number: int = descriptor.values_by_name[name].number
    return number


def _bare(hint: Any) -> Any:
    """Return `T` of `T | None`."""
    if get_origin(hint) in (Union, types.UnionType):
        rest = [one for one in get_args(hint) if one is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint
