"""What the executor's parts tell of their work. This meter listens to nothing; `prometheus.Metrics` is the real one."""

from typing import Literal

LoginOutcome = Literal["succeeded", "dropped", "refused", "unreachable", "cancelled"]
"""`dropped`: the server hung up before it knew us, so it is tried again. `refused`: host key or user."""

SshWait = Literal["connection", "pace", "channel"]
"""For what: room in the pool or the login of a shared connection; the next start allowed; a channel of the connection."""

TaskOutcome = Literal["finished", "given_up", "let_go"]


class Meter:
    """Told of everything worth counting, always from the event loop; never raises, never blocks."""

    def run_began(self, kind: str) -> None:
        """Count a run that this executor claimed."""

    def run_ended(self, kind: str, outcome: str, seconds: float) -> None:
        """Count the end of a run here; `outcome` is its state, or `lost` when it is another executor's now."""

    def step_ended(self, kind: str, step: str, outcome: str, seconds: float) -> None:
        """Count a step on a worker: `kind` of its run, `step` one of a few words, `outcome` as the contract says it."""

    def hook_ended(self, event: str, outcome: str, seconds: float) -> None:
        """Count a hook process and how long it lived."""

    def login_ended(self, outcome: LoginOutcome, seconds: float) -> None:
        """Count one try to log in to a worker."""

    def ssh_waited(self, what: SshWait, seconds: float) -> None:
        """Count one wait before something could go on over SSH."""

    def events_stored(self, lags: list[float]) -> None:
        """Count events, each with the seconds from when it was made until the catalog had it."""

    def lease_lost(self, of: Literal["run", "task"]) -> None:
        """Count a run or task that this executor had to let go of."""

    def task_claimed(self, *, own: bool) -> None:
        """Count a part of wide work that this executor took, of its own run or of another's."""

    def task_ended(self, outcome: TaskOutcome) -> None:
        """Count how such a part ended here."""
