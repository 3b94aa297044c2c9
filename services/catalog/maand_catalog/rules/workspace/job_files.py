"""Rules about the files of one job: reserved names, the Makefile, scripts of hooks, symbolic links, old layouts."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from maand_catalog.rules.workspace import names
from maand_catalog.rules.workspace.manifest import RUNTIME_BY_SUFFIX, HookFacts, Manifest
from maand_catalog.rules.workspace.problems import Finding
from maand_catalog.rules.workspace.tree import TreeEntry
from maand_wire.nearest import did_you_mean

MANIFEST = "manifest.json"
VARIABLES = "vars.toml"
MAKEFILES = ("Makefile", "Makefile.j2")
HOOKS = "_hooks"
MONITORING = "_prometheus"
TEMPLATE_SUFFIX = ".j2"
OLD_TEMPLATE_SUFFIX = ".tpl"
"""Of maand-Go's templates: shipped as they are, a service would start without its configuration."""
RESERVED = ("data", "logs", "bin")
"""Names that belong to the job's own run time on the worker; maand never touches them there."""

OLD_SCRIPT = re.compile(r"_modules/command_([a-z0-9_]+)(\.[a-z]+)?")
MOST_LINKS = 40


@dataclass(frozen=True, kw_only=True)
class HookScript:
    """A hook with the script that was found for it."""

    hook: HookFacts
    path: str
    runtime: str


def manifest_path(job: str) -> str:
    """Return where a job's manifest is, relative to the bucket."""
    return f"workspace/jobs/{job}/{MANIFEST}"


def goes_to_workers(path: str) -> bool:
    """Whether a job's file is copied to workers: all but hooks, what is for monitoring, the manifest and `vars.toml`."""
    return path not in (MANIFEST, VARIABLES) and path.split("/", 1)[0] not in (HOOKS, MONITORING)


def find_stand_ins(entries: Iterable[TreeEntry]) -> Iterator[Finding]:
    """Find what stands in the place of `jobs/` or of a job's directory: read as nothing, it would remove running jobs.

    A checkout without symbolic links (`core.symlinks=false`) has a small file with the target in the place of each.
    """
    for entry in entries:
        if entry.path == "jobs" or stands_for_job(entry):
            what = "a symbolic link" if entry.link_target else "a file"
            yield Finding(
                code="not_a_directory",
                message=f'"{entry.path}" is {what}, it must be a directory',
                file=f"workspace/{entry.path}",
                help="put the directory itself there: copy it, or mount it (mount --bind)",
            )


def stands_for_job(entry: TreeEntry) -> bool:
    """Whether an entry directly under `jobs/` is in the place of a job: any link, and a file named as a job may be."""
    top, _, name = entry.path.partition("/")
    if top != "jobs" or not name or "/" in name or name.startswith("."):
        return False
    return bool(entry.link_target) or names.JOB.fullmatch(name) is not None


def tree_findings(directory: str, files: tuple[TreeEntry, ...]) -> Iterator[Finding]:
    """Check what can be said without the manifest."""
    by_path = {entry.path: entry for entry in files}
    yield from find_reserved_names(directory, files)
    yield from find_double_targets(directory, by_path)
    for entry in files:
        old = OLD_SCRIPT.fullmatch(entry.path)
        if old:
            yield Finding(
                code="old_name",
                message=f'"{entry.path}" is the old place of a hook',
                file=f"{directory}/{entry.path}",
                help=f'move it to "_hooks/hook_{old[1]}{old[2] or ".py"}" and name it under "hooks"',
            )
        if entry.path.endswith(OLD_TEMPLATE_SUFFIX) and entry.sha256 and goes_to_workers(entry.path):
            fresh = entry.path.removesuffix(OLD_TEMPLATE_SUFFIX) + TEMPLATE_SUFFIX
            yield Finding(
                code="old_name",
                message=f'"{entry.path}" is named as the templates of maand-Go were, and would be copied as it is',
                file=f"{directory}/{entry.path}",
                help=f'templates are Jinja2 and end in {TEMPLATE_SUFFIX}: "{fresh}"; give a file of another kind another name',
            )
        if entry.link_target:
            yield from link_findings(directory, by_path, entry)


def find_reserved_names(directory: str, files: tuple[TreeEntry, ...]) -> Iterator[Finding]:
    """Find top-level names that would collide with what the job writes on its worker."""
    for name in sorted({entry.path.split("/", 1)[0].removesuffix(TEMPLATE_SUFFIX) for entry in files}.intersection(RESERVED)):
        yield Finding(
            code="reserved_name",
            message=f'"{name}" is reserved for what the job writes on its worker',
            file=f"{directory}/{name}",
            help="choose another name",
        )


def find_double_targets(directory: str, by_path: Mapping[str, TreeEntry]) -> Iterator[Finding]:
    """Find templates whose result another file already is."""
    for path in by_path:
        if (
            by_path[path].sha256
            and path.endswith(TEMPLATE_SUFFIX)
            and path.removesuffix(TEMPLATE_SUFFIX) in by_path
            and goes_to_workers(path)
        ):
            yield Finding(
                code="duplicate_target",
                message=f'"{path}" would be rendered over "{path.removesuffix(TEMPLATE_SUFFIX)}"',
                file=f"{directory}/{path}",
                help="keep one of the two",
            )


def link_findings(directory: str, by_path: Mapping[str, TreeEntry], link: TreeEntry) -> Iterator[Finding]:
    """Check that a symbolic link stays inside the job, however many links it leads through."""
    try:
        stays = resolves_inside(by_path, link.path)
    except RecursionError:
        yield Finding(code="link_loop", message=f'the link "{link.path}" leads to itself', file=f"{directory}/{link.path}")
        return
    if not stays:
        yield Finding(
            code="link_leaves_job",
            message=f'the link "{link.path}" leaves the job\'s directory',
            file=f"{directory}/{link.path}",
            help="copy the file into the job, or create the link in the Makefile",
        )


def resolves_inside(by_path: Mapping[str, TreeEntry], path: str) -> bool:
    """Walk a path part by part as a kernel does, following links; False when it climbs out. RecursionError for a loop."""
    waiting = path.split("/")
    reached: list[str] = []
    followed = 0
    while waiting:
        part = waiting.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not reached:
                return False
            reached.pop()
            continue
        entry = by_path.get("/".join([*reached, part]))
        if entry is None or not entry.link_target:
            reached.append(part)
            continue
        followed += 1
        if followed > MOST_LINKS:
            raise RecursionError(path)
        if posixpath.isabs(entry.link_target):
            return False
        waiting = entry.link_target.split("/") + waiting
    return True


def manifest_findings(directory: str, files: tuple[TreeEntry, ...], manifest: Manifest) -> Iterator[Finding]:
    """Check the files against the manifest: a lifecycle, and one script per hook."""
    paths = {entry.path for entry in files}
    if not paths.intersection(MAKEFILES) and not manifest.owns_lifecycle():
        yield Finding(
            code="missing_makefile",
            message="the job has no Makefile",
            file=f"{directory}/Makefile",
            help='add one with the targets start, stop, restart and reload, or a hook on "job_control"',
        )
    for hook in manifest.hooks:
        yield from script_findings(directory, paths, hook)


def script_findings(directory: str, paths: set[str], hook: HookFacts) -> Iterator[Finding]:
    """Check that a hook has exactly one script and that its runtime can run it."""
    scripts = scripts_of(paths, hook.name)
    file = f"{directory}/{MANIFEST}"
    if not scripts:
        near = did_you_mean(hook.name, {PurePosixPath(path).stem for path in list_scripts(paths)})
        yield Finding(
            code="missing_script",
            message=f'"{hook.name}" has no script',
            file=file,
            path=("hooks", hook.name),
            at="key",
            help=near or f'add "_hooks/{hook.name}.py", ".ts" or ".js"',
        )
    elif len(scripts) > 1:
        listed = ", ".join(scripts)
        yield Finding(
            code="ambiguous_script",
            message=f'"{hook.name}" has more than one script: {listed}',
            file=file,
            path=("hooks", hook.name),
            at="key",
            help="keep one of them",
        )
    elif hook.runtime is not None and RUNTIME_BY_SUFFIX[PurePosixPath(scripts[0]).suffix] != hook.runtime:
        yield Finding(
            code="runtime_mismatch",
            message=f'"{hook.runtime}" does not run {scripts[0]}',
            file=file,
            path=("hooks", hook.name, "runtime"),
            help="leave the runtime out: the suffix decides",
        )


def scripts_of(paths: set[str], hook: str) -> list[str]:
    """Return the scripts a hook has."""
    return [path for suffix in RUNTIME_BY_SUFFIX if (path := f"{HOOKS}/{hook}{suffix}") in paths]


def list_scripts(paths: set[str]) -> list[str]:
    """Return everything that looks like the script of a hook."""
    return [path for path in sorted(paths) if re.fullmatch(r"_hooks/hook_[a-z0-9_]+\.(py|ts|js)", path)]


def hook_scripts(files: tuple[TreeEntry, ...], manifest: Manifest) -> tuple[HookScript, ...]:
    """Return the hooks with their scripts; hooks whose script is missing or ambiguous are left out."""
    paths = {entry.path for entry in files}
    found = [(hook, scripts_of(paths, hook.name)) for hook in manifest.hooks]
    return tuple(
        HookScript(hook=hook, path=scripts[0], runtime=RUNTIME_BY_SUFFIX[PurePosixPath(scripts[0]).suffix])
        for hook, scripts in found
        if len(scripts) == 1
    )


def find_unnamed_scripts(files: tuple[TreeEntry, ...], manifest: Manifest) -> list[str]:
    """Return scripts named like hooks that the manifest does not mention: likely forgotten."""
    named = {hook.name for hook in manifest.hooks}
    return [path for path in list_scripts({entry.path for entry in files}) if PurePosixPath(path).stem not in named]
