"""Masking of whole messages: every field that may hold words of a hook, a command or an error, and none that is an identity."""

from collections.abc import Callable

from google.protobuf.message import Message

FREE_TEXT = frozenset(
    {"diff", "help", "last_lines", "lines", "message", "notices", "problem", "reason", "text"},
)
"""Field names, in events and results, whose text was not made by maand alone. Jobs, workers, steps and versions stay readable."""


def mask_message(message: Message, mask: Callable[[str], str]) -> None:
    """Mask a message in place, whatever is nested in it."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                mask_message(part, mask)
        elif field.name in FREE_TEXT:
            mask_field(message, field.name, mask, repeated=field.is_repeated)


def mask_field(message: Message, name: str, mask: Callable[[str], str], *, repeated: bool) -> None:
    """Mask one text field, or every text of a repeated one."""
    if not repeated:
        setattr(message, name, mask(getattr(message, name)))
        return
    texts = getattr(message, name)
    texts[:] = [mask(text) for text in texts]
