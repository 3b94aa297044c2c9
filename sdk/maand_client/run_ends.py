"""How a run ended, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from maand_client.errors import Problem, RunFailed, problem_from_message
from maand_contracts.catalog.v1 import run_event_pb2, run_pb2, run_spec_pb2
from maand_wire.conversions import message_reader
from maand_wire.enums import enum_word


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One thing that failed. `kind` is the contract's word, `command`, `unreachable`, `unhealthy` and so on, in lower case."""

    kind: str
    message: str
    help: str = ""
    job: str = ""
    worker: str = ""
    step: str = ""
    exit_code: int = 0
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that is over. `state` is `succeeded`, `failed`, `cancelled` or `interrupted`; `counts` are targets by outcome."""

    run_id: str
    kind: str
    state: str
    message: str
    failures: tuple[Failure, ...] = ()
    problems: tuple[Problem, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    next_command: str = ""
    unreachable_workers: tuple[str, ...] = ()
    changes: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether it did what was asked."""
        return self.state == "succeeded"

    def raise_for_state(self) -> None:
        """Raise `RunFailed`, with the first failure's words, unless it succeeded."""
        if not self.succeeded:
            first = self.failures[0] if self.failures else None
            where = f"{first.worker or first.job}: {first.message}" if first and (first.worker or first.job) else ""
            message = f"{self.kind} {self.run_id} {self.state}: {where or (first.message if first else self.message)}"
            raise RunFailed(
                message,
                code=f"run_{self.state}",
                help=first.help if first else self.next_command,
                facts={"run_id": self.run_id},
                problems=self.problems,
            )


ENDED: Mapping[run_pb2.RunState.ValueType, str] = {
    run_pb2.RUN_STATE_SUCCEEDED: "succeeded",
    run_pb2.RUN_STATE_FAILED: "failed",
    run_pb2.RUN_STATE_CANCELLED: "cancelled",
    run_pb2.RUN_STATE_INTERRUPTED: "interrupted",
}
"""States in which a stream's end is the run's end. A run that another executor may take over keeps its stream open."""


def end_of(run: run_pb2.Run) -> Ended | None:
    """Read the end of a run; None while it has not ended."""
    state = ENDED.get(run.state)
    if state is None:
        return None
    result = run.result
    return Ended(
        run_id=run.run_id,
        kind=enum_word(run_spec_pb2.RunKind, run.kind),
        state=state,
        message=result.message or run.message,
        failures=tuple(failure_from_message(failure) for failure in result.failures),
        problems=tuple(problem_from_message(problem) for problem in result.problems),
        counts=MappingProxyType(dict(result.counts)),
        notices=tuple(result.notices),
        next_command=result.next_command,
        unreachable_workers=tuple(result.unreachable_workers),
        changes=result.changes,
    )


failure_from_message = message_reader(Failure, run_event_pb2.Failure)
