"""Kinds of fields that files share: each a type with the rule that checks it and the schema that describes it."""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from maand_catalog.building.documents.validation import validated_by
from maand_catalog.rules.workspace import names
from maand_catalog.rules.workspace.manifest import EVENTS
from maand_catalog.rules.workspace.problems import Rejected
from maand_catalog.rules.workspace.written_values import parse_cpu_mhz, parse_memory_mb, parse_version
from maand_wire.nearest import did_you_mean

LARGEST_COUNT = 1_000_000


def when_text(rule: Any) -> Any:
    """Apply a rule to strings only; anything else is left for the type check, which says it better."""
    return lambda value: rule(value) if isinstance(value, str) else value


def checked_version(written: str) -> str:
    """Accept a version and keep it as written, without a leading `v`."""
    parse_version(written)
    return written.removeprefix("v")


def checked_event(written: str) -> str:
    """Accept the name of an event."""
    if written in EVENTS:
        return written
    raise Rejected(
        "unknown_event",
        f'"{written[:60]}" is not an event',
        help=did_you_mean(written, EVENTS) or f"use one of {', '.join(EVENTS)}",
    )


def checked_port_number(written: Any) -> int | None:
    """Accept a fixed number, or `{}` for the lowest free one (None)."""
    if written == {} and isinstance(written, dict):
        return None
    if isinstance(written, int) and not isinstance(written, bool) and 1 <= written <= 65535:
        return written
    raise Rejected("bad_port", "a port is {} (the lowest free one) or a number from 1 to 65535")


def checked_http_path(written: str) -> str:
    """Accept the path of an HTTP check."""
    if written.startswith("/") and len(written) <= 2048 and written.isprintable() and " " not in written:
        return written
    raise Rejected("bad_path", 'a path begins with "/" and has no spaces', help='for example "/healthz"')


def checked_probe_port(written: Any) -> int | str:
    """Accept a port's name or number."""
    if isinstance(written, str) or (isinstance(written, int) and not isinstance(written, bool) and 1 <= written <= 65535):
        return written
    raise Rejected("bad_port", "a port is the name of a port or a number from 1 to 65535")


Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Memory = Annotated[
    int, validated_by(parse_memory_mb), WithJsonSchema({"type": ["string", "integer"], "examples": ["512 mb", "4 gb"]})
]
Cpu = Annotated[
    int, validated_by(parse_cpu_mhz), WithJsonSchema({"type": ["string", "integer"], "examples": ["500 mhz", "2 ghz"]})
]
Label = Annotated[str, validated_by(when_text(names.checked_label))]
VersionText = Annotated[str, validated_by(when_text(checked_version))]
Event = Annotated[str, validated_by(when_text(checked_event)), WithJsonSchema({"enum": list(EVENTS)})]
PortName = Annotated[str, validated_by(when_text(names.checked_port_name))]
HookName = Annotated[str, validated_by(when_text(names.checked_hook_name))]
SubjectPart = Annotated[str, validated_by(when_text(names.checked_subject_part))]
Country = Annotated[str, validated_by(when_text(names.checked_country))]
CertificateName = Annotated[str, validated_by(when_text(names.checked_certificate_name))]
PortNumber = Annotated[
    int | None,
    validated_by(checked_port_number),
    WithJsonSchema({"oneOf": [{"type": "object", "maxProperties": 0}, {"type": "integer", "minimum": 1, "maximum": 65535}]}),
]
ProbePort = Annotated[
    int | str,
    validated_by(checked_probe_port),
    WithJsonSchema({"oneOf": [{"type": "string"}, {"type": "integer", "minimum": 1, "maximum": 65535}]}),
]
