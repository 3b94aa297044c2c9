"""The workspace compiler: a file list and contents in, a `Workspace` or every problem of every file out.

It reads each settings file by its model, then lets the rules look across files. Positions are found last, and only for what is
wrong. Nothing here does IO: contents are handed in by digest (`wanted_contents` says which).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import BaseModel

from maand_catalog.building.documents.conf_files import BucketConf, JobsConf, MaandConf
from maand_catalog.building.documents.json_text import read_json
from maand_catalog.building.documents.manifest_file import RENAMED, ManifestFile
from maand_catalog.building.documents.source import LARGEST_SETTINGS_BYTES, NotReadable, Source
from maand_catalog.building.documents.toml_text import read_toml
from maand_catalog.building.documents.validation import validate_document
from maand_catalog.building.documents.variables import read_kv_entries
from maand_catalog.building.documents.workers_file import DisabledFile, WorkersFile, find_repeated_workers, worker_facts
from maand_catalog.errors import Problem
from maand_catalog.rules.build.checked_workspace import (
    JobSource,
    Workspace,
    WorkspaceParts,
    assemble_workspace,
    findings_across_files,
)
from maand_catalog.rules.build.placement import describe_unmatched_jobs, place_jobs
from maand_catalog.rules.workspace import job_files, names
from maand_catalog.rules.workspace.bucket_facts import CONFIG_FILE, BucketConfig, Disabled, JobSettings, PortPool, WorkerFacts
from maand_catalog.rules.workspace.manifest import Manifest
from maand_catalog.rules.workspace.problems import Finding, Rejected, sort_problems
from maand_catalog.rules.workspace.tree import TreeEntry, group_by_job
from maand_wire.nearest import did_you_mean

M = TypeVar("M", bound=BaseModel)
Read = Callable[[str, bytes], Source]

WORKERS = "workers.json"
DISABLED = "disabled.json"
BUCKET_CONF = "bucket.conf"
JOBS_CONF = "bucket.jobs.conf"
KNOWN_FILES = (WORKERS, DISABLED, BUCKET_CONF, JOBS_CONF)


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """The outcome: a workspace, or problems (then there is none). `sources` place findings that later rules make."""

    workspace: Workspace | None
    problems: tuple[Problem, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)

    def problem(self, finding: Finding) -> Problem:
        """Turn a later finding into a problem with its position."""
        return locate_finding(self.sources, finding)


def compile_config(content: bytes, bucket_id: str) -> BucketConfig | tuple[Problem, ...]:
    """Read `maand.conf`; it must name the bucket it is sent for."""
    try:
        source = read_toml(CONFIG_FILE, content)
    except NotReadable as error:
        return (error.problem,)
    found = validate_document(MaandConf, source)
    if isinstance(found, tuple):
        return sort_problems(found)
    if found.bucket_id != bucket_id:
        message = f'"bucket_id" is {found.bucket_id}, this is bucket {bucket_id}'
        return (source.problem(Finding(code="other_bucket", message=message, file=CONFIG_FILE, path=("bucket_id",))),)
    return found.to_facts()


def wanted_contents(tree: Iterable[TreeEntry]) -> dict[bytes, int]:
    """Return digest and size of every settings file the compiler will read."""
    return {
        entry.sha256: entry.size
        for entry in tree
        if entry.sha256 and entry.size <= LARGEST_SETTINGS_BYTES and is_settings_file(entry.path)
    }


def is_settings_file(path: str) -> bool:
    """Whether a file is read by maand rather than by a job."""
    parts = path.split("/")
    if parts[0] == "jobs":
        return len(parts) == 3 and parts[2] in (job_files.MANIFEST, job_files.VARIABLES)
    return len(parts) == 1 and (path in KNOWN_FILES or is_jobs_conf(path))


def is_jobs_conf(path: str) -> bool:
    """Whether a file is `bucket.jobs.conf` or a variant of it."""
    return path == JOBS_CONF or (path.startswith("bucket.jobs.") and path.endswith(".conf") and len(path) > len(JOBS_CONF))


def locate_finding(sources: Mapping[str, Source], finding: Finding) -> Problem:
    """Turn a finding into a problem; without a readable text it is about the file as a whole."""
    source = sources.get(finding.file)
    if source is not None:
        return source.problem(finding)
    return Problem(code=finding.code, message=finding.message, file=finding.file, help=finding.help)


def compile_workspace(
    tree: Iterable[TreeEntry], contents: Mapping[bytes, bytes], config: BucketConfig, maand_conf: bytes
) -> Compiled:
    """Compile a workspace; all problems of all files in one pass, in the order of the files."""
    return Compiler(tree, contents, config, maand_conf).run()


class Compiler:
    """One compilation: collects sources and problems while it reads."""

    def __init__(
        self, tree: Iterable[TreeEntry], contents: Mapping[bytes, bytes], config: BucketConfig, maand_conf: bytes
    ) -> None:
        self._tree = {entry.path: entry for entry in tree}
        self._contents = contents
        self._config = config
        self._sources: dict[str, Source] = {CONFIG_FILE: read_toml(CONFIG_FILE, maand_conf)}
        self._problems: list[Problem] = []
        self._warnings: list[str] = []
        self._manifests: dict[bytes, Manifest] = {}

    def run(self) -> Compiled:
        """Read everything, then look across files."""
        files_by_job = group_by_job(self._tree.values())
        workers = self._workers()
        disabled = self._model(DISABLED, read_json, DisabledFile)
        pool, bucket_variables = self._bucket_conf()
        settings = self._settings(frozenset(files_by_job))
        jobs = {name: job for name, files in files_by_job.items() if (job := self._job(name, files))}
        parts = WorkspaceParts(
            config=self._config,
            job_names=frozenset(files_by_job),
            jobs=jobs,
            workers=workers,
            disabled=disabled.to_facts() if disabled else Disabled(),
            pool=pool,
            bucket_variables=bucket_variables,
            settings=settings,
        )
        self._add(findings_across_files(parts))
        self._add(job_files.find_stand_ins(self._tree.values()))
        self._unknown_files()
        if self._problems:
            return Compiled(workspace=None, problems=sort_problems(self._problems))
        self._warnings += describe_unmatched_jobs(place_jobs(parts.workers or (), parts.manifests()), parts.manifests())
        return Compiled(workspace=assemble_workspace(parts, tuple(self._warnings)), problems=(), sources=self._sources)

    def _add(self, findings: Iterable[Finding]) -> None:
        self._problems += [locate_finding(self._sources, finding) for finding in findings]

    def _source(self, path: str, read: Read) -> Source | None:
        """Read a settings file, or note why it cannot be read; None also when there is none."""
        entry = self._tree.get(path)
        file = f"workspace/{path}"
        if entry is None:
            return None
        if entry.link_target:
            self._problems.append(Problem(code="not_a_file", message="a settings file cannot be a symbolic link", file=file))
            return None
        if entry.size > LARGEST_SETTINGS_BYTES:
            self._problems.append(Problem(code="file_too_large", message="the file is larger than 1024 KiB", file=file))
            return None
        try:
            source = read(file, self._contents[entry.sha256])
        except NotReadable as error:
            self._problems.append(error.problem)
            return None
        self._sources[file] = source
        return source

    def _model(self, path: str, read: Read, model: type[M], renamed: Mapping[str, str] | None = None) -> M | None:
        """Read a settings file by its model, or note its problems."""
        source = self._source(path, read)
        if source is None:
            return None
        found = validate_document(model, source, renamed=renamed)
        if isinstance(found, tuple):
            self._problems += found
            return None
        return found

    def _missing(self, file: str, help_text: str) -> None:
        message = f'"{file.rpartition("/")[2]}" is missing'
        self._problems.append(Problem(code="missing_file", message=message, file=file, help=help_text))

    def _workers(self) -> tuple[WorkerFacts, ...] | None:
        if WORKERS not in self._tree:
            self._missing(f"workspace/{WORKERS}", 'write the workers, for example [{"host": "10.0.0.1"}]')
            return None
        found = self._model(WORKERS, read_json, WorkersFile)
        if found is None:
            return None
        repeated = find_repeated_workers(self._sources[f"workspace/{WORKERS}"], found)
        self._problems += repeated
        return None if repeated else worker_facts(found)

    def _bucket_conf(self) -> tuple[PortPool, dict[str, str]]:
        found = self._model(BUCKET_CONF, read_toml, BucketConf)
        return (found.pool() if found else PortPool()), self._variables(f"workspace/{BUCKET_CONF}")

    def _variables(self, file: str, table: str | None = None) -> dict[str, str]:
        """Return the KV entries of a TOML file, or of one table of it."""
        source = self._sources.get(file)
        data: Any = source.data if source else {}
        at = () if table is None else (table,)
        data = data if table is None else data.get(table, {})
        if source is None or not isinstance(data, dict):
            return {}
        entries, problems = read_kv_entries(source, data, at)
        self._problems += problems
        return entries

    def _settings(self, job_names: frozenset[str]) -> dict[str, JobSettings]:
        """Read every variant of `bucket.jobs.conf`; the selected one is laid over the plain one, key by key."""
        selected = f"bucket.jobs.{self._config.job_config_selector}.conf" if self._config.job_config_selector else JOBS_CONF
        if selected != JOBS_CONF and selected not in self._tree:
            finding = Finding(
                code="missing_file",
                message=f'there is no "workspace/{selected}"',
                file=CONFIG_FILE,
                path=("job_config_selector",),
            )
            self._add([finding])
        settings: dict[str, JobSettings] = {}
        for path in sorted(filter(is_jobs_conf, self._tree), key=lambda path: (path == selected, path)):
            tables = self._jobs_conf(path, job_names)
            if path in (JOBS_CONF, selected):
                for job, table in tables.items():
                    settings[job] = overlay_settings(settings.get(job, JobSettings()), table)
        return settings

    def _jobs_conf(self, path: str, job_names: frozenset[str]) -> dict[str, JobSettings]:
        found = self._model(path, read_toml, JobsConf)
        file = f"workspace/{path}"
        tables: dict[str, JobSettings] = {}
        for job, table in (found.root if found else {}).items():
            if job not in job_names:
                hint = did_you_mean(job, job_names)
                self._add(
                    [Finding(code="unknown_job", message=f'there is no job "{job}"', file=file, path=(job,), at="key", help=hint)]
                )
            entries = self._variables(file, job)
            tables[job] = JobSettings(
                memory_mb=table.memory,
                cpu_mhz=table.cpu,
                memory_file=file if table.memory is not None else "",
                cpu_file=file if table.cpu is not None else "",
                variables=tuple(entries.items()),
            )
        return tables

    def _job(self, name: str, files: tuple[TreeEntry, ...]) -> JobSource | None:
        directory = f"workspace/jobs/{name}"
        try:
            names.checked_job_name(name)
        except Rejected as error:
            self._problems.append(Problem(code=error.code, message=error.message, file=directory, help=error.help))
        named = tuple(entry for entry in files if not entry.directory)
        self._add(job_files.tree_findings(directory, files))
        entries = self._job_variables(name)
        if not any(entry.path == job_files.MANIFEST for entry in named):
            self._missing(f"{directory}/{job_files.MANIFEST}", "write at least {}")
            return None
        manifest = self._manifest(f"jobs/{name}/{job_files.MANIFEST}")
        if manifest is None:
            return None
        self._add(job_files.manifest_findings(directory, named, manifest))
        self._warnings += [
            f"{directory}/{path} is not named in the manifest" for path in job_files.find_unnamed_scripts(named, manifest)
        ]
        scripts = job_files.hook_scripts(named, manifest)
        return JobSource(name=name, manifest=manifest, files=files, scripts=scripts, variables=entries)

    def _job_variables(self, name: str) -> dict[str, str]:
        path = f"jobs/{name}/{job_files.VARIABLES}"
        self._source(path, read_toml)
        return self._variables(f"workspace/{path}")

    def _manifest(self, path: str) -> Manifest | None:
        """Read a manifest; equal content is validated once."""
        digest = self._tree[path].sha256
        known = self._manifests.get(digest)
        if known is not None:
            self._source(path, read_json)
            return known
        found = self._model(path, read_json, ManifestFile, RENAMED)
        if found is None:
            return None
        self._manifests[digest] = found.to_facts()
        return self._manifests[digest]

    def _unknown_files(self) -> None:
        """Warn about files beside the known ones that look like a slip: `worker.json` for `workers.json`, a file beside jobs."""
        for path in self._tree:
            if path.startswith("jobs/") and path.count("/") == 1 and not path.startswith("jobs/."):
                self._warnings.append(f"workspace/{path} is not read, a job is a directory with a {job_files.MANIFEST}")
            if "/" not in path and path.endswith((".json", ".conf")) and not is_settings_file(path):
                hint = did_you_mean(path, KNOWN_FILES)
                self._warnings.append(f"workspace/{path} is not read{f', {hint}' if hint else ''}")


def overlay_settings(below: JobSettings, above: JobSettings) -> JobSettings:
    """Lay one job's table over another; keys of the upper one win."""
    merged = replace(below, variables=tuple((dict(below.variables) | dict(above.variables)).items()))
    if above.memory_mb is not None:
        merged = replace(merged, memory_mb=above.memory_mb, memory_file=above.memory_file)
    if above.cpu_mhz is not None:
        merged = replace(merged, cpu_mhz=above.cpu_mhz, cpu_file=above.cpu_file)
    return merged
