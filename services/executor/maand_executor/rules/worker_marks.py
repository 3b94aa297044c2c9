"""What lies in the bucket's directory on a worker and says whose the worker is: read, judged, and written anew."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from maand_executor.rules.facts import BucketConfig, Worker, WorkerFence
from maand_executor.rules.remote_commands import fence_line
from maand_executor.rules.worker_scripts import bucket_directory, describe_worker

READ_FILES = ("worker.json", "jobs.json", "fence")
LONGEST_WORD = 255
MOST_JOBS = 1_000
FENCE_WORDS = 4
"""`seq number epoch owner`; a fence of before owners has fewer."""


@dataclass(frozen=True, kw_only=True)
class WorkerMarks:
    """Whose a worker says it is. Empty = it does not say. What other programs wrote is cut and cleaned, never believed."""

    bucket_id: str = ""
    worker_id: str = ""
    name: str = ""
    owner_id: str = ""
    jobs: tuple[str, ...] = ()

    def is_of(self, config: BucketConfig, worker: Worker) -> bool:
        """Whether the marks let this bucket act on this worker: none of them names another one."""
        ours = ((self.bucket_id, config.bucket_id), (self.worker_id, worker.worker_id), (self.owner_id, config.owner_id))
        return all(not found or found == wanted for found, wanted in ours)


def read_marks_script(config: BucketConfig) -> str:
    """Print the files that tell, each followed by a NUL byte; nothing where the bucket has no directory."""
    names = " ".join(READ_FILES)
    directory = shlex.quote(bucket_directory(config))
    return f"cd {directory} 2>/dev/null || exit 0; for name in {names}; do cat $name 2>/dev/null; printf '\\0'; done"


def parse_worker_marks(printed: bytes) -> WorkerMarks | None:
    """Read what `read_marks_script` printed. None: there is nothing that names anybody."""
    files = dict(zip(READ_FILES, printed.decode(errors="replace").split("\0"), strict=False))
    about, jobs = read_json(files.get("worker.json", "")), read_json(files.get("jobs.json", ""))
    about = about if isinstance(about, dict) else {}
    fence = files.get("fence", "").split()
    marks = WorkerMarks(
        bucket_id=word_of(about, "bucket_id"),
        worker_id=word_of(about, "worker_id"),
        name=word_of(about, "host"),
        owner_id=clean_word(fence[3]) if len(fence) == FENCE_WORDS else word_of(about, "owner_id"),
        jobs=tuple(filter(None, (word_of(job, "job") for job in jobs[:MOST_JOBS]))) if isinstance(jobs, list) else (),
    )
    return None if marks == WorkerMarks() else marks


def read_json(text: str) -> object:
    """Return what a text holds; None when it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def word_of(values: object, name: str) -> str:
    """Return a member that is a text."""
    value = values.get(name) if isinstance(values, Mapping) else None
    return clean_word(value) if isinstance(value, str) else ""


def clean_word(text: str) -> str:
    """Return a text short, and without what a terminal would act on."""
    return "".join(filter(str.isprintable, text))[:LONGEST_WORD]


def adopt_script() -> str:
    """Make the worker this bucket's: fence and `worker.json`, one a line on standard input, in `$MAAND_DIRECTORY`.

    Commands that run there under another owner's fence are waited for; those that come later are refused.
    """
    return (
        'mkdir -p "$MAAND_DIRECTORY/jobs" && cd "$MAAND_DIRECTORY" && exec 4>fence.gate 5<>fence && flock -x 4 && flock -x 5'
        ' && IFS= read -r fence && IFS= read -r about && printf "%s\\n" "$fence" >fence'
        ' && printf "%s\\n" "$about" >.worker.json.new && chmod 644 .worker.json.new && mv -f .worker.json.new worker.json'
    )


def adopt_environment(config: BucketConfig) -> dict[str, str]:
    """Return what `adopt_script` is told."""
    return {"MAAND_DIRECTORY": bucket_directory(config)}


def adopt_input(config: BucketConfig, worker: Worker, fence: WorkerFence) -> bytes:
    """Return what `adopt_script` reads."""
    about = describe_worker(config, worker, ()).splitlines()[0]
    return fence_line(fence, config.owner_id).encode() + b"\n" + about + b"\n"
