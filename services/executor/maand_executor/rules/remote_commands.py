"""Remote commands as values, and the bash text that carries them out. Pure: exact tests, nothing here reaches a worker.

A command line on a worker is `exec [sudo -n] bash … -c 'read …'`: the same for every command, so nothing of it is secret and no
start-up file of bash costs time. It is one short line of plain words and single quotes, without `!`, backslash or line break:
every login shell that Debian ships takes that alike (csh ends quoted text at a line break, and has words of 1,000 characters).
Everything else is written to the command's input: `bootstrap.sh`, then the *order*: environment, checks and script, which never
show in `ps`, and a NUL byte; then the command's own input.

Before the script begins the worker says so in one line (`Opening` reads it); what the login shell printed before is dropped.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import resources

from maand_executor.rules.facts import WorkerFence

DEFAULT_CAPTURE_LIMIT = 4 * 1024 * 1024
NO_LIMIT_SECONDS = 100_000_000
"""What `read -t` is given for a command without a timeout: three years."""
SPARE_SECONDS = 10
"""The worker's own limit comes this much after the executor's, which is the one that counts; it serves when nobody is left."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How the worker watches a command: time between TERM and KILL, and the silence after which the executor counts as gone."""

    grace: timedelta
    silence: timedelta


@dataclass(frozen=True, kw_only=True)
class HostCheck:
    """Refuse a worker whose `worker.json`, when there is one, names another bucket, worker or owner. Empty = any is right."""

    path: str
    bucket_id: str
    worker_id: str
    owner_id: str = ""


@dataclass(frozen=True, kw_only=True)
class RemoteCommand:
    """A bash script for a worker. Its text, environment and input stay out of `repr`: they may hold secrets.

    `directory` is relative to the SSH user's home; None = that home; with `directory_optional` a missing one is as None.
    `timeout` counts from the start of the command; None = none. With `takes_input` everything that follows the order is the
    command's own input: there is no lifeline then, the command ends by itself when its input does.
    """

    script: str = field(repr=False)
    sudo: bool
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    directory: str | None = None
    directory_optional: bool = False
    stdin: bytes = field(default=b"", repr=False)
    takes_input: bool = False
    timeout: timedelta | None = None
    fence: WorkerFence | None = None
    check_host: bool = False
    check_owner: bool = False
    """With `check_host`, and for what carries no fence: refuse a worker that another database acts on."""
    capture_limit: int = DEFAULT_CAPTURE_LIMIT


@dataclass(frozen=True, kw_only=True)
class RemoteResult:
    """How a command ended. `exit_code` is 128 + n for signal n, and 124 when it was ended after its timeout."""

    exit_code: int
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    timed_out: bool = False
    end_known: bool = True
    """False: it was told to end after its timeout, and the worker did not say that everything of it has."""
    truncated: bool = False
    duration: timedelta = timedelta()

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.exit_code == 0


def strip_comments(text: str) -> str:
    """Strip comments and indentation from a bash text whose quoted strings hold no line breaks."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


BOOTSTRAP = strip_comments(resources.files(__package__).joinpath("bootstrap.sh").read_text(encoding="utf-8")) + "\n"
"""ASCII, so that bash counts its characters alike in every locale."""
READ_BOOTSTRAP = f'IFS= read -r -N {len(BOOTSTRAP)} maand_bootstrap && eval "$maand_bootstrap"'
"""With its length, bash reads it in a few pieces; up to a delimiter it would read byte by byte."""


def command_line(*, sudo: bool) -> str:
    """Return what the worker's sshd is asked to run."""
    return f"exec {'sudo -n ' if sudo else ''}bash --noprofile --norc -c '{READ_BOOTSTRAP}'"


def make_order(
    command: RemoteCommand, *, watch: Watch, fence_directory: str = "", owner_id: str = "", host_check: HostCheck | None = None
) -> bytes:
    """Return what is written to the command's input: bootstrap, order, NUL, the command's own input.

    Raises `ValueError` for a NUL byte in script or environment, or a name that is no variable name.
    """
    parts = [
        *export_lines(command.environment),
        begin_text(command, watch),
        *([host_check_text(host_check)] if host_check else []),
        *([fence_text(command.fence, fence_directory, owner_id=owner_id)] if command.fence else []),
        *([LET_GO_OF_FENCE] if command.fence and command.takes_input else []),
        *([directory_text(command.directory, optional=command.directory_optional)] if command.directory else []),
        "maand_say begun",
        run_text(command.script, fenced=command.fence is not None),
    ]
    text = "\n".join(parts)
    if "\0" in text:
        raise ValueError("a script or an environment value for a worker holds a NUL byte")
    return BOOTSTRAP.encode("ascii") + text.encode("utf-8", "surrogateescape") + b"\0" + command.stdin


def begin_text(command: RemoteCommand, watch: Watch) -> str:
    """Return what decides whose the channel's input is: the lifeline's, after the command's own, or all the command's."""
    if command.takes_input:
        return "exec <&3 3<&-"
    numbers = (limit_seconds(command.timeout), whole_seconds(watch.grace), whole_seconds(watch.silence), len(command.stdin))
    return f"maand_begin {' '.join(map(str, numbers))}"


def limit_seconds(timeout: timedelta | None) -> int:
    """Return the worker's own limit, whole seconds."""
    return NO_LIMIT_SECONDS if timeout is None else int(timeout.total_seconds()) + 1 + SPARE_SECONDS


def whole_seconds(time: timedelta) -> int:
    """Return a time as bash takes it: seconds, at least one."""
    return max(1, round(time.total_seconds()))


VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def export_lines(environment: Mapping[str, str]) -> list[str]:
    """Return one `export` for each variable."""
    for name in environment:
        if not VARIABLE_NAME.fullmatch(name):
            raise ValueError(f'"{name}" is not the name of an environment variable')
    return [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]


def directory_text(directory: str, *, optional: bool) -> str:
    """Return the change into the command's directory."""
    change = f"cd -- {shlex.quote(directory)} 2>/dev/null"
    return f"{change} || true" if optional else f"{change} || maand_refuse directory"


def run_text(script: str, *, fenced: bool) -> str:
    """Return the run itself. Descriptor 5 holds the fence: nothing that the script leaves behind may keep it."""
    run = f"eval {shlex.quote(script)}"
    return f"unset maand_order\n{{ {run}\n}} 5<&-" if fenced else f"unset maand_order\n{run}"


def fence_text(fence: WorkerFence, directory: str, *, owner_id: str = "") -> str:
    """Return the fence: remember the greatest (epoch, seq, number) in a file, refuse a smaller one, keep owners of a run apart.

    The first database that acts here leaves its owner id; any other is refused, whatever it carries. A worker of before owner ids
    is completed, and a catalog of before them (empty `owner_id`) refused where there is one.

    Two locks: the gate is held while the triple is looked at; the fence is held as long as the command runs, together (shared) by
    commands of one owner. A newer owner passes the gate and waits there until the commands of the older one have ended.

    The file holds `seq number epoch owner`; what is not three numbers and an id (or fewer, of before epochs and owners) counts as
    nothing seen: bash would evaluate other text as arithmetic.
    """
    return strip_comments(FENCE).format(
        directory=shlex.quote(directory),
        epoch=fence.epoch,
        seq=fence.seq,
        number=fence.number,
        owner=shlex.quote(owner_id),
        line=shlex.quote(fence_line(fence, owner_id)),
    )


def fence_line(fence: WorkerFence, owner_id: str) -> str:
    """Return what the fence's file holds."""
    return f"{fence.seq} {fence.number} {fence.epoch} {owner_id}".rstrip()


LET_GO_OF_FENCE = "exec 5<&-"
"""For what has no lifeline: it would hold up newer owners for as long as it hangs on a worker whose connection is dead."""

FENCE = """
maand_seen=$(umask); umask 022
mkdir -p -- {directory} && exec 4>{directory}/fence.gate 5<>{directory}/fence || maand_refuse fence_file
umask "$maand_seen"
flock -x 4 || maand_refuse fence_lock
maand_seen=; read -r maand_seen < {directory}/fence
[[ $maand_seen =~ ^([0-9]{{1,18}})" "([0-9]{{1,18}})(" "([0-9]{{1,18}})(" "([0-9a-f-]{{36}}))?)?$ ]] || maand_seen=
maand_owner=${{BASH_REMATCH[6]}}
maand_seq=$((10#${{BASH_REMATCH[1]:-0}})) maand_number=$((10#${{BASH_REMATCH[2]:-0}})) maand_epoch=$((10#${{BASH_REMATCH[4]:-0}}))
if [[ -n $maand_owner && $maand_owner != {owner} ]]; then
  maand_refuse foreign_worker owner_id "$maand_owner"
elif ((maand_epoch != {epoch} ? maand_epoch > {epoch} : maand_seq != {seq} ? maand_seq > {seq} : maand_number > {number})); then
  maand_refuse stale_fence "$maand_epoch" "$maand_seq" "$maand_number"
elif [[ $maand_seen != {line} ]]; then
  flock -x 5 && echo {line} > {directory}/fence || maand_refuse fence_lock
fi
flock -s 5 || maand_refuse fence_lock
exec 4>&-
"""


def host_check_text(check: HostCheck) -> str:
    """Return the check of `worker.json`: what it names must be this bucket, worker and owner; no file is no objection."""
    wanted = {"bucket_id": check.bucket_id, "worker_id": check.worker_id, "owner_id": check.owner_id}
    tests = [
        f"[[ $maand_about =~ {json_string_pattern(name)} && ${{BASH_REMATCH[1]}} != {shlex.quote(value)} ]]"
        f' && maand_refuse foreign_worker {name} "${{BASH_REMATCH[1]}}"'
        for name, value in wanted.items()
        if value
    ]
    path = shlex.quote(check.path)
    return "\n".join([f"if [[ -e {path} ]]; then", f"maand_about=$(<{path})", *tests, "unset maand_about", "fi"])


def json_string_pattern(name: str) -> str:
    """Return bash's pattern of a JSON member whose value is a string, with the value as its first group."""
    return f'\\"{name}\\"[[:space:]]*:[[:space:]]*\\"([^\\"]*)\\"'


OPENING = re.compile(rb"\x02maand ([^\n]*)\n")


class Opening:
    """Reads a command's output up to the line in which the worker says that it began, or why not."""

    MOST_NOISE = 64 * 1024

    def __init__(self) -> None:
        self.words: tuple[str, ...] | None = None
        self.noise = b""
        self.complaints = b""
        """What came on standard error before: of a login shell, or of sudo that says why not."""

    @property
    def begun(self) -> bool:
        """Whether the command began."""
        return self.words == ("begun",)

    def feed(self, data: bytes) -> bytes:
        """Take output in; return what belongs to the command."""
        if self.words is not None:
            return data
        self.noise += data
        found = OPENING.search(self.noise)
        if found is None:
            self.noise = self.noise[-self.MOST_NOISE :]
            return b""
        self.words = tuple(found[1].decode("utf-8", "replace").split(" "))
        rest, self.noise = self.noise[found.end() :], self.noise[: found.start()]
        return rest

    def hear(self, data: bytes) -> None:
        """Keep what is said on standard error as long as the command has not begun."""
        if self.words is None:
            self.complaints = (self.complaints + data)[-self.MOST_NOISE :]
