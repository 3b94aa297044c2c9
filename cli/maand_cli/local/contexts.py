"""Contexts: named clusters and how this person reaches them, in one private file of the user's configuration.

    ~/.config/maand/contexts.toml (0600)     chosen: --context, else MAAND_CONTEXT, else `current`, else the bucket's own
        current = "cluster"
        [contexts.cluster]
        catalog = "127.0.0.1:7600,127.0.0.1:7610"    needed: addresses, used in turn
        executor = "…"                               optional
        ca = "/…/ca.crt"                             CA of the servers' certificates
        token_file = "/…/operator.token"             API token
        certificate = "/…", key = "/…"               certificate to present

The file names files; it holds no secret itself.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from maand_cli.errors import InvalidFile, Problem, UnknownName, Usage
from maand_cli.local.bucket import toml_problem
from maand_wire.endpoints import Endpoint, TlsFiles

LOCAL = "local"
"""The name of no context: the services of the bucket itself."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """How one cluster is reached. Empty = not given."""

    catalog: str
    executor: str = ""
    ca: str = ""
    token_file: str = ""
    certificate: str = ""
    key: str = ""

    def catalog_endpoint(self) -> Endpoint:
        """Return where the catalogs are."""
        return self._endpoint(self.catalog)

    def executor_endpoint(self) -> Endpoint | None:
        """Return where an executor is, when the context says so."""
        return self._endpoint(self.executor) if self.executor else None

    def _endpoint(self, address: str) -> Endpoint:
        files = {name: Path(value) for name in ("ca", "certificate", "key") if (value := getattr(self, name))}
        token_file = Path(self.token_file) if self.token_file else None
        return Endpoint(address=address, tls=TlsFiles(**files) if files else None, token_file=token_file)


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Everything in the file."""

    current: str = LOCAL
    named: Mapping[str, Context] = field(default_factory=dict)

    def find(self, name: str) -> Context | None:
        """Return a context by name; None for `local`. Raises UnknownName."""
        if name == LOCAL:
            return None
        if name not in self.named:
            known = ", ".join((LOCAL, *self.named))
            raise UnknownName(f'no such context "{name}"', help=f"known: {known}; maand context add {name} --catalog HOST:PORT")
        return self.named[name]


def contexts_file(environment: Mapping[str, str]) -> Path:
    """Return where contexts are kept."""
    home = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME') or Path.home()}/.config"
    return Path(home) / "maand" / "contexts.toml"


def choose_context(given: str, *, environment: Mapping[str, str]) -> tuple[str, Context | None]:
    """Return the context in force and its name: the flag's, MAAND_CONTEXT's, or the file's current one.

    MAAND_CATALOG_ADDRESS says more precisely where to go than a context that was only chosen once: it wins over `current`.
    """
    named = given or environment.get("MAAND_CONTEXT", "")
    if not named and environment.get("MAAND_CATALOG_ADDRESS"):
        return "", None
    contexts = read_contexts(contexts_file(environment))
    name = named or contexts.current
    return name, contexts.find(name)


def read_contexts(path: Path) -> Contexts:
    """Read the file; nothing when there is none. Raises InvalidFile."""
    import tomllib

    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Contexts()
    except UnicodeDecodeError as error:
        raise InvalidFile(Problem(code="not_utf8", message="the file is not UTF-8 text", file=str(path))) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidFile(toml_problem(str(error), path.read_bytes(), file=str(path))) from error
    named = values.get("contexts", {})
    if not isinstance(named, dict):
        raise InvalidFile(Problem(code="invalid_contexts", message="contexts must be tables: [contexts.NAME]", file=str(path)))
    return Contexts(
        current=str(values.get("current") or LOCAL), named={name: _context(name, table, path) for name, table in named.items()}
    )


def _context(name: str, table: Any, path: Path) -> Context:
    known = {field.name for field in fields(Context)}
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()) or not table.get("catalog"):
        message = f'context "{name}" needs `catalog`, and only text as values'
        raise InvalidFile(Problem(code="invalid_context", message=message, file=str(path)))
    unknown = sorted(table.keys() - known)
    if unknown:
        message = f'context "{name}" has an unknown key "{unknown[0]}"'
        raise InvalidFile(Problem(code="unknown_key", message=message, file=str(path), help=f"known: {', '.join(sorted(known))}"))
    return Context(**table)


def add_context(path: Path, name: str, context: Context) -> bool:
    """Write a context; True when it replaced one. Raises Usage, InvalidFile."""
    if name == LOCAL or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise Usage(f'"{name}" cannot be the name of a context', help="letters, digits, . _ -; not `local`")
    contexts = read_contexts(path)
    _write(path, Contexts(current=contexts.current, named={**contexts.named, name: context}))
    return name in contexts.named


def use_context(path: Path, name: str) -> None:
    """Make a context the one that commands use by themselves. Raises UnknownName."""
    contexts = read_contexts(path)
    contexts.find(name)
    _write(path, Contexts(current=name, named=contexts.named))


def _write(path: Path, contexts: Contexts) -> None:
    """Replace the file at once, for this user only."""
    lines = [f"current = {json.dumps(contexts.current)}"]
    for name, context in contexts.named.items():
        lines += ["", f"[contexts.{json.dumps(name)}]"]
        lines += [
            f"{key.name} = {json.dumps(getattr(context, key.name))}" for key in fields(Context) if getattr(context, key.name)
        ]
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")
    fresh.replace(path)
