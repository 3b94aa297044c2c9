"""The models of `workers.json` and `disabled.json`."""

from typing import Annotated

from pydantic import Field, RootModel, WithJsonSchema

from maand_catalog.building.documents.fields import Cpu, Label, Memory, when_text
from maand_catalog.building.documents.source import Source
from maand_catalog.building.documents.validation import FileModel, validated_by
from maand_catalog.errors import Problem
from maand_catalog.rules.workspace import names
from maand_catalog.rules.workspace.bucket_facts import EVERY_WORKER, Disabled, WorkerFacts
from maand_catalog.rules.workspace.problems import Finding

Host = Annotated[str, validated_by(when_text(names.checked_host))]
Tags = dict[Annotated[str, validated_by(when_text(names.checked_tag))], Annotated[str, Field(max_length=4096)]]
Labels = Annotated[tuple[Label, ...], Field(strict=False)]
LARGEST_POSITION = 1_000_000


class WorkerModel(FileModel):
    """One SSH host."""

    host: Host
    hostname: Annotated[str, Field(max_length=200)] = ""
    labels: Labels = ()
    memory: Memory = 0
    cpu: Cpu = 0
    tags: Tags = Field(default_factory=dict)
    position: Annotated[int, Field(ge=0, le=LARGEST_POSITION)] | None = None
    ssh_user: Annotated[str, validated_by(when_text(names.checked_user))] = ""
    ssh_port: Annotated[int, Field(ge=1, le=65535)] | None = None


class WorkersFile(RootModel[list[WorkerModel]]):
    """All workers; their order is their position."""


class DisabledJob(FileModel):
    """A job that is switched off: everywhere, or on the hosts named."""

    allocations: Annotated[tuple[Host, ...], Field(strict=False)] = ()


class DisabledFile(FileModel):
    """What is switched off."""

    jobs: dict[Annotated[str, WithJsonSchema({"type": "string"})], DisabledJob] = Field(default_factory=dict)
    workers: Annotated[tuple[Host, ...], Field(strict=False)] = ()

    def to_facts(self) -> Disabled:
        """Return what is switched off as the rules know it."""
        return Disabled(workers=self.workers, jobs={name: job.allocations for name, job in self.jobs.items()})


def worker_facts(found: WorkersFile) -> tuple[WorkerFacts, ...]:
    """Return the workers by position: the one written, else the place in the list."""
    numbered = sorted(
        enumerate(found.root), key=lambda each: (each[0] if each[1].position is None else each[1].position, each[0])
    )
    return tuple(
        WorkerFacts(
            name=worker.host,
            position=position,
            listed=listed,
            hostname=worker.hostname,
            labels=tuple(sorted({EVERY_WORKER, *worker.labels})),
            memory_mb=worker.memory,
            cpu_mhz=worker.cpu,
            tags=tuple(sorted(worker.tags.items())),
            ssh_user=worker.ssh_user,
            ssh_port=worker.ssh_port or 0,
        )
        for position, (listed, worker) in enumerate(numbered)
    )


def find_repeated_workers(source: Source, found: WorkersFile) -> tuple[Problem, ...]:
    """Find hosts and positions that are given to two workers."""
    problems: list[Problem] = []
    for key in ("host", "position"):
        seen: set[object] = set()
        for index, worker in enumerate(found.root):
            value = getattr(worker, key)
            if value is not None and value in seen:
                text = f"{key} {value} is given to two workers" if key == "position" else f'"{value}" is listed twice'
                problems.append(
                    source.problem(Finding(code=f"duplicate_{key}", message=text, file=source.file, path=(index, key)))
                )
            seen.add(value)
    return tuple(problems)
