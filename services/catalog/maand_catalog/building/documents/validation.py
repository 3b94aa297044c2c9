"""From plain data to a model, or to findings in the words of people rather than of pydantic."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, LiteralString, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, RootModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from maand_catalog.building.documents.source import Source
from maand_catalog.errors import Problem
from maand_catalog.rules.workspace.problems import Finding, KeyPath, Rejected
from maand_wire.nearest import did_you_mean

M = TypeVar("M", bound=BaseModel)


class FileModel(BaseModel):
    """A part of a user's file: unknown keys are errors, types are meant as written, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def validated_by(rule: Callable[[Any], Any]) -> BeforeValidator:
    """Let a pure rule validate a field; what it rejects becomes a finding at the field."""

    def run(value: Any) -> Any:
        try:
            return rule(value)
        except Rejected as error:
            raise PydanticCustomError(error.code, "{message}", {"message": error.message, "help": error.help}) from error

    return BeforeValidator(run)


def rule_error(code: LiteralString, message: str, *at: str | int) -> PydanticCustomError:
    """Return the error of a rule about several fields; `at` leads from the model to the one to mend."""
    return PydanticCustomError(code, "{message}", {"message": message, "at": at})


def refuse_empty_list(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list without items; items that are wrong are told by themselves."""
    if not values:
        raise PydanticCustomError("empty_list", "the list needs at least one item")
    return values


NonEmpty = AfterValidator(refuse_empty_list)
"""Marks a list that needs an item."""


def validate_document(model: type[M], source: Source, *, renamed: Mapping[str, str] | None = None) -> M | tuple[Problem, ...]:
    """Validate a document; return the model, or all its problems with positions."""
    try:
        return model.model_validate(source.data)
    except ValidationError as error:
        return tuple(source.problem(finding) for finding in findings_of_errors(model, source, error, renamed or {}))


def findings_of_errors(
    model: type[BaseModel], source: Source, error: ValidationError, renamed: Mapping[str, str]
) -> list[Finding]:
    """Say each error in one sentence, with the nearest known key where a key is unknown."""
    return [finding_of_error(model, source, each, renamed) for each in error.errors(include_url=False)]


def finding_of_error(model: type[BaseModel], source: Source, error: ErrorDetails, renamed: Mapping[str, str]) -> Finding:
    """Translate one pydantic error."""
    path = real_path(source.data, tuple(step for step in error["loc"] if step != "[key]"))
    name = str(path[-1]) if path else "the document"
    match error["type"]:
        case "extra_forbidden" if name in renamed:
            return Finding(
                code="old_name", message=f'"{name}" is an old name', file=source.file, path=path, at="key", help=renamed[name]
            )
        case "extra_forbidden":
            hint = did_you_mean(name, known_keys(model, error["loc"][:-1]))
            return Finding(code="unknown_key", message=f'unknown key "{name}"', file=source.file, path=path, at="key", help=hint)
        case "missing":
            return Finding(code="missing_key", message=f'"{name}" is missing', file=source.file, path=path[:-1])
        case "union_tag_not_found":
            return Finding(code="missing_key", message='"type" is missing', file=source.file, path=path)
        case "union_tag_invalid":
            return unknown_kind_finding(source.file, path, error)
        case _:
            at: Literal["key", "value"] = "key" if error["loc"][-1:] == ("[key]",) else "value"
            return replace(value_finding(source.file, path, error), at=at)


def unknown_kind_finding(file: str, path: KeyPath, error: ErrorDetails) -> Finding:
    """Say that a `type` is none of the known ones."""
    context = error.get("ctx") or {}
    known = [word.strip().strip("'") for word in str(context["expected_tags"]).split(",")]
    words = ", ".join(f'"{word}"' for word in known)
    hint = did_you_mean(str(context["tag"]), known)
    return Finding(code="unknown_word", message=f'"type" must be one of {words}', file=file, path=(*path, "type"), help=hint)


def value_finding(file: str, path: KeyPath, error: ErrorDetails) -> Finding:
    """Translate an error about a value: a wrong type, a number out of range, a word that is not among the known ones."""
    context = error.get("ctx") or {}
    kind = error["type"]
    path = (*path, *context.get("at", ()))
    where = name_of_path(path)
    if kind in EXPECTED_TYPES:
        return Finding(
            code="wrong_type",
            message=f"{where} must be {EXPECTED_TYPES[kind]}, not {type_word(error['input'])}",
            file=file,
            path=path,
        )
    if kind in LIMITS:
        return Finding(code="out_of_range", message=f"{where} must be {LIMITS[kind].format(**context)}", file=file, path=path)
    if kind == "literal_error":
        expected = str(context["expected"])
        words = [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",")]
        hint = did_you_mean(str(error["input"]), words)
        return Finding(
            code="unknown_word", message=f"{where} must be {expected.replace(chr(39), chr(34))}", file=file, path=path, help=hint
        )
    return Finding(
        code=kind, message=str(context.get("message", error["msg"])), file=file, path=path, help=str(context.get("help", ""))
    )


EXPECTED_TYPES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}

LIMITS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "string_too_short": "a text of at least {min_length} character",
    "string_too_long": "a text of at most {max_length} characters",
    "finite_number": "a finite number",
}


def name_of_path(path: KeyPath) -> str:
    """Name what a path leads to: `"selectors"`, `item 2 of "selectors"`, or the document."""
    if not path:
        return "the document"
    if isinstance(path[-1], str):
        return f'"{path[-1]}"'
    return f"item {path[-1] + 1} of {name_of_path(path[:-1])}"


def type_word(value: Any) -> str:
    """Name the kind of a value as JSON and TOML do."""
    words = {
        bool: "true or false",
        int: "a number",
        float: "a decimal number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else words.get(type(value), "a date or time")


def real_path(data: Any, location: tuple[int | str, ...]) -> KeyPath:
    """Drop what pydantic adds to a location (names of union members): keep what leads through the data."""
    path: list[int | str] = []
    for number, step in enumerate(location):
        is_last = number == len(location) - 1
        if isinstance(data, dict) and (step in data or is_last):
            path.append(step)
            data = data.get(str(step))
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            path.append(step)
            data = data[step]
    return tuple(path)


def known_keys(annotation: Any, location: tuple[int | str, ...]) -> set[str]:
    """Return the keys a model knows at a location, following fields, lists, mappings and tagged unions."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        return known_keys(annotation.model_fields["root"].annotation, location)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        names = {field.alias or name: field for name, field in annotation.model_fields.items()}
        if not location:
            return set(names)
        field = names.get(str(location[0]))
        return known_keys(field.annotation, location[1:]) if field else known_keys(annotation, location[1:])
    parts = [part for part in get_args(annotation) if part is not type(None)]
    inside = location[1:] if is_container(annotation) else location
    return set().union(*(known_keys(part, inside) for part in parts)) if parts else set()


def is_container(annotation: Any) -> bool:
    """Whether a location has one step (an index or a key) through this annotation."""
    return getattr(annotation, "__origin__", None) in (list, tuple, dict, Mapping)
