"""Writing facts into `workers.json`: only the objects that change are written anew, everything else stays byte for byte."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maand_cli.errors import InvalidFile, Problem
from maand_wire.hosts import normalize_host

FILE = "workspace/workers.json"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a worker has."""

    memory_mb: int
    cpu_mhz: int


def insert_facts(text: str, facts: Mapping[str, Facts]) -> str:
    """Return the file's text with memory and CPU of these hosts. Raises InvalidFile when it is not an array of objects."""
    pieces: list[str] = []
    copied = 0
    for begin, end in _objects(text):
        worker = json.loads(text[begin:end])
        found = facts.get(normalize_host(str(worker.get("host", ""))))
        if found is None:
            continue
        fresh = {**worker, "memory": f"{found.memory_mb} mb", "cpu": f"{found.cpu_mhz} mhz"}
        if fresh == worker:
            continue
        pieces += [text[copied:begin], _in_the_style_of(text, begin, end, fresh)]
        copied = end
    return "".join([*pieces, text[copied:]])


def write_facts(path: Path, facts: Mapping[str, Facts]) -> bool:
    """Write facts into the file, whole or not at all; return whether anything changed."""
    text = path.read_text()
    fresh = insert_facts(text, facts)
    if fresh == text:
        return False
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(fresh)
    beside.chmod(path.stat().st_mode & 0o777)
    beside.replace(path)
    return True


def _objects(text: str) -> list[tuple[int, int]]:
    """Find begin and end of each object of the array."""
    decoder = json.JSONDecoder()
    spans = []
    position = _skip(text, 0)
    if text[position : position + 1] != "[":
        raise InvalidFile(Problem(code="invalid_workers", message="must be an array of workers", file=FILE, line=1))
    position = _skip(text, position + 1)
    while text[position : position + 1] == "{":
        try:
            _, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise InvalidFile(
                Problem(code="invalid_json", message=error.msg, file=FILE, line=error.lineno, column=error.colno)
            ) from error
        spans.append((position, end))
        position = _skip(text, end)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
    return spans


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _in_the_style_of(text: str, begin: int, end: int, worker: Mapping[str, object]) -> str:
    """Write an object on one line or many, as it was written."""
    if "\n" not in text[begin:end]:
        return json.dumps(worker, ensure_ascii=False)
    outer = re.search(r"[ \t]*$", text[:begin])
    margin = outer[0] if outer else ""
    inner = re.match(r"\{\s*?\n([ \t]*)", text[begin:end])
    indent = max(1, len(inner[1]) - len(margin)) if inner else 2
    return json.dumps(worker, ensure_ascii=False, indent=indent).replace("\n", f"\n{margin}")
