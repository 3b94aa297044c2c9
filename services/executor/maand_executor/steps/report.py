"""What a run will say at its end, gathered while it works: also a run that is cancelled in the middle knows what it did."""

from collections import Counter
from collections.abc import Iterable, Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.common.v1 import error_pb2


class RunReport:
    """Failures, counts and notices of one run, in the order they became known."""

    def __init__(self) -> None:
        self.message = ""
        self.next_command = ""
        self.changes = False
        self.stopped_early = False
        """Set by work that stopped between two batches because it was asked to."""
        self.failures: list[pb.Failure] = []
        self.problems: list[error_pb2.Problem] = []
        self.counts: Counter[str] = Counter()
        self._notices: dict[str, None] = {}
        self._unreachable: dict[str, None] = {}
        self._may_change: dict[str, None] = {}

    def count(self, outcome: str, number: int = 1) -> None:
        """Count allocations or workers by outcome."""
        self.counts[outcome] += number

    def fail(self, failures: Iterable[pb.Failure]) -> None:
        """Add failures."""
        self.failures.extend(failures)

    def note(self, text: str) -> None:
        """Add a line for the summary, once."""
        self._notices[text] = None

    def may_change(self, job: str) -> None:
        """Remember a job that hooks may still change."""
        self._may_change[job] = None

    def leave_out(self, workers: Iterable[str]) -> None:
        """Remember workers that could not be reached and were left out."""
        self._unreachable.update(dict.fromkeys(workers))

    @property
    def unreachable(self) -> Sequence[str]:
        """Workers left out."""
        return tuple(self._unreachable)

    def result(self) -> pb.RunResult:
        """Return the result as it stands."""
        return pb.RunResult(
            message=self.message,
            failures=self.failures,
            problems=self.problems,
            counts={outcome: number for outcome, number in self.counts.items() if number},
            notices=list(self._notices),
            next_command=self.next_command,
            unreachable_workers=list(self._unreachable),
            changes=self.changes,
            may_change_jobs=list(self._may_change),
        )
