"""Templates (`*.j2`): Jinja2, sandboxed, where everything undefined is an error with file and line.

A template sees what a hook of the same allocation may read, no more. Whether it used a secret is noted, so that the rendered file
becomes readable by its owner only. Nothing here waits or reads files: `renderer` has it done by a process of its own, because a
template is a program, and may want more memory or time than there is.
"""

import traceback
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from maand_executor.errors import TemplateError
from maand_executor.rules.facts import Allocation, AllocationViews, Worker

SUFFIX = ".j2"
LARGEST_RENDERED_BYTES = 16 * 1024 * 1024
"""Of one rendered file: what an executor keeps in memory for each allocation. The files of a job that are copied as they are may
have four times that."""
SECRET_MODE = 0o600
MISSING: Any = object()
Newline = Literal["\n", "\r\n"]


@dataclass(frozen=True, kw_only=True)
class RenderedFile:
    """Text of one template for one allocation. `secret`: it used a secret value."""

    path: str
    mode: int
    data: bytes = field(repr=False)
    secret: bool = False


@dataclass(frozen=True, kw_only=True)
class TemplateSubject:
    """For whom a template is rendered."""

    allocation: Allocation
    worker: Worker
    bucket_id: str
    job_path: str

    def variables(self) -> dict[str, Any]:
        """Return the plain variables of the specification."""
        return {
            "allocation_id": self.allocation.allocation_id,
            "allocation_index": self.allocation.index,
            "job": self.allocation.job,
            "worker_ip": self.worker.name,
            "worker_id": self.worker.worker_id,
            "labels": list(self.worker.labels),
            "tags": dict(self.worker.tags),
            "current_version": self.allocation.version_before,  # by promotion alone no file may change
            "new_version": self.allocation.new_version,
            "bucket_id": self.bucket_id,
            "job_path": self.job_path,
        }


@dataclass(frozen=True, kw_only=True)
class TemplateWork:
    """What is rendered for one job: its templates, each for every subject."""

    job: str
    sources: Mapping[str, bytes] = field(repr=False)
    modes: Mapping[str, int]
    """By path of a template."""
    subjects: tuple[TemplateSubject, ...]
    views: AllocationViews

    def render(self) -> Iterator[RenderedFile]:
        """Yield the rendered files of the first subject, then those of the next. Raises `TemplateError`."""
        templates = JobTemplates(self.job, self.sources)
        for subject in self.subjects:
            for path, mode in self.modes.items():
                yield templates.render(path, mode, subject, self.views)


class TemplateValueError(jinja2.TemplateRuntimeError):
    """A template asked for a value that is absent, or that its allocation may not read. Store it, or give a default."""


class RenderedTooLarge(jinja2.TemplateRuntimeError):
    """A template makes more than a rendered file may have. Let it make less, or let the Makefile make the file on the worker."""


class Environment(ImmutableSandboxedEnvironment):
    """The sandbox. What can make much out of little is left to the moment of rendering, where its line is known."""

    intercepted_binops = frozenset({"*", "**"})


class ValueReader:
    """The functions `get`, `secret` and `keys` for one allocation; remembers whether a secret was read."""

    def __init__(self, job: str, allocation_id: str, views: AllocationViews) -> None:
        self._job = job
        self._views = views
        self._readable = views.readable.get(allocation_id, frozenset())
        self.used_secret = False

    def get(self, namespace: str, key: str, default: Any = MISSING) -> Any:
        """Return one value, or the default when it is absent."""
        values = self._values(namespace)
        if key in values:
            return values[key]
        if default is not MISSING:
            return default
        raise TemplateValueError(f'"{key}" is not in {namespace}; store it, or write get("{namespace}", "{key}", "default")')

    def secret(self, key: str, default: Any = MISSING) -> Any:
        """Return one secret of the allocation's own job."""
        return self.get(f"secrets/job/{self._job}", key, default)

    def keys(self, namespace: str) -> list[str]:
        """Return the keys of a namespace, sorted."""
        return sorted(self._values(namespace))

    def _values(self, namespace: str) -> Mapping[str, str]:
        if namespace not in self._readable:
            raise TemplateValueError(f"namespace {namespace} may not be read by an allocation of {self._job}")
        content = self._views.namespaces.get(namespace)
        self.used_secret |= namespace.startswith("secrets/") or bool(content and content.secret)
        return content.values if content else {}


def printed_value(value: Any) -> Any:
    """Return what `{{ value }}` prints: true and false as JSON, TOML, YAML and most programs have them, not as Python."""
    return str(value).lower() if isinstance(value, bool) else value


class JobTemplates:
    """The templates of one job, compiled once and rendered for each allocation."""

    def __init__(self, job: str, sources: Mapping[str, bytes]) -> None:
        self._job = job
        self._sources = sources
        self._environments: dict[Newline, jinja2.Environment] = {}

    def render(self, path: str, mode: int, subject: TemplateSubject, views: AllocationViews) -> RenderedFile:
        """Render one template. Raises `TemplateError` with file and line."""
        reader = ValueReader(self._job, subject.allocation.allocation_id, views)
        try:
            template = self._environment_for(path).get_template(path)
            functions = {"get": reader.get, "secret": reader.secret, "keys": reader.keys}
            data = collect_output(template, {**subject.variables(), **functions})
        except TemplateError:
            raise
        except Exception as error:  # a template is a program: whatever it raises is told with its line
            raise self._error(path, subject.worker.name, error) from error
        return RenderedFile(
            path=path.removesuffix(SUFFIX),
            mode=SECRET_MODE if reader.used_secret else mode,
            data=data,
            secret=reader.used_secret,
        )

    def _environment_for(self, path: str) -> jinja2.Environment:
        """Return the environment that leaves line ends as the template has them: Jinja makes all of them those of its own."""
        newline = newline_of(self._sources[path])
        if newline not in self._environments:
            self._environments[newline] = Environment(
                loader=jinja2.FunctionLoader(self._load),
                undefined=jinja2.StrictUndefined,
                finalize=printed_value,
                newline_sequence=newline,
                keep_trailing_newline=True,
                autoescape=False,
                auto_reload=False,
            )
        return self._environments[newline]

    def _load(self, path: str) -> tuple[str, str, None] | None:
        return (read_template_text(self._job, path, self._sources[path]), path, None) if path in self._sources else None

    def _error(self, path: str, worker: str, error: Exception) -> TemplateError:
        """Say where it went wrong: the innermost line that is a template's."""
        if isinstance(error, jinja2.TemplateSyntaxError):
            return TemplateError(str(error.message), job=self._job, path=error.name or path, line=error.lineno, worker=worker)
        place, line = path, 0
        for frame, number in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename in self._sources:
                place, line = frame.f_code.co_filename, number
        return TemplateError(words_of(error), job=self._job, path=place, line=line, worker=worker)


def collect_output(template: jinja2.Template, variables: Mapping[str, Any]) -> bytes:
    """Render, no further than a file may be long: then the line that wrote too much is told."""
    output = bytearray()
    pieces = cast("Generator[str]", template.generate(variables))
    for piece in pieces:
        output += piece.encode()
        if len(output) > LARGEST_RENDERED_BYTES:
            output.clear()
            pieces.throw(RenderedTooLarge(f"the rendered file is larger than {LARGEST_RENDERED_BYTES >> 20} MiB"))
    return bytes(output)


def words_of(error: Exception) -> str:
    """Say what a template did wrong."""
    if isinstance(error, MemoryError):
        return "needs more memory than a template may have"
    return str(error) or type(error).__name__


def newline_of(source: bytes) -> Newline:
    """Return the line end of a template: that of its first line."""
    first, found, _ = source.partition(b"\n")
    return "\r\n" if found and first.endswith(b"\r") else "\n"


def read_template_text(job: str, path: str, source: bytes) -> str:
    """Read a template's text."""
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        line = source[: error.start].count(b"\n") + 1
        raise TemplateError("is not UTF-8 text", job=job, path=path, line=line, worker="any worker") from error
