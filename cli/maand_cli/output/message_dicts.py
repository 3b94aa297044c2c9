"""Contract messages as plain values for JSON: names of the contract, enum values as lower-case words, times as ISO 8601."""

from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from maand_wire.enums import word_in


def to_dict(message: Message) -> dict[str, Any]:
    """Return every field of a message; a sub-message or time that is not set is None, a `oneof` gives only what is set."""
    return {
        field.name: _field(message, field)
        for field in message.DESCRIPTOR.fields
        if field.containing_oneof is None or message.HasField(field.name)
    }


def field_word(message: Message, name: str) -> str:
    """Return an enum field's value as its word: `RUN_STATE_RUNNING` -> `running`; unset is empty."""
    return word_in(message.DESCRIPTOR.fields_by_name[name].enum_type, getattr(message, name))


def iso_from_timestamp(time: Timestamp) -> str:
    """Return a time as ISO 8601 UTC, to the millisecond."""
    from datetime import UTC

    return time.ToDatetime(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        values = field.message_type.fields_by_name["value"]
        return {key: _value(values, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_value(field, item) for item in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return iso_from_timestamp(value)
    if isinstance(value, Message):
        return to_dict(value)
    if isinstance(value, bytes):
        return value.hex()
    return word_in(field.enum_type, value) if field.enum_type is not None else value
