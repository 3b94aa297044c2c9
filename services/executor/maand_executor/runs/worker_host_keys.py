"""`maand worker trust`: look at the host keys of workers, and pin those that somebody has seen and confirmed.

    every worker shows its keys -> compared with what is pinned -> [pin] compared with what was confirmed -> one write -> told

Between the question and the answer somebody may get in between: what a worker shows now is pinned only when it is what was shown
then, all of it.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.run_spec_pb2 import WorkerProbeSpec
from maand_executor.rules.facts import Worker
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.ssh.errors import HostKeyChanged, HostKeyNotConfirmed, HostKeyUnknown, SshError
from maand_executor.ssh.host_keys import HostKey, PinState
from maand_executor.steps.context import RunContext

STATES: Mapping[PinState, pb.HostKeyState.ValueType] = {
    PinState.PINNED: pb.HOST_KEY_STATE_PINNED,
    PinState.UNKNOWN: pb.HOST_KEY_STATE_NEW,
    PinState.CHANGED: pb.HOST_KEY_STATE_CHANGED,
}


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a worker showed, or why it could not be looked at; `objection`: why its keys must not be pinned."""

    worker: Worker
    keys: tuple[HostKey, ...] = ()
    states: tuple[PinState, ...] = ()
    error: SshError | None = None
    objection: SshError | None = None

    @property
    def changed(self) -> bool:
        """Whether another key than the pinned one was shown."""
        return PinState.CHANGED in self.states

    @property
    def pinned(self) -> bool:
        """Whether every key shown is pinned."""
        return bool(self.states) and set(self.states) == {PinState.PINNED}


async def look_at_host_keys(context: RunContext, workers: Sequence[Worker]) -> list[Sight]:
    """Look at the host keys of all of them, without logging in, and pin what was confirmed. Raises `KnownHostsUnwritable`."""
    spec = context.spec.worker_probe
    confirmed = {one.worker: frozenset(one.fingerprints) for one in spec.confirmed} if spec.pin else None

    async def look(worker: Worker) -> Sight:
        try:
            keys = await context.remote.scan_host_keys(worker)
        except SshError as error:
            return Sight(worker=worker, error=error)
        states = context.remote.host_key_states(worker, keys)
        sight = Sight(worker=worker, keys=keys, states=states)
        return replace(sight, objection=objection_to(sight, spec, confirmed))

    sights = await side_by_side(workers, look)
    return await pin_confirmed(context, sights) if spec.pin else sights


def objection_to(sight: Sight, spec: WorkerProbeSpec, confirmed: Mapping[str, AbstractSet[str]] | None) -> SshError | None:
    """Return why the keys of a worker must not be pinned: they changed, or are not those that were confirmed."""
    name = sight.worker.name
    if confirmed is not None and not sight.pinned:
        shown, wanted = {key.fingerprint for key in sight.keys}, confirmed.get(name, frozenset())
        if not wanted:
            return HostKeyUnknown(name, f"nobody confirmed the SSH host keys that it shows: {listed(shown)}")
        if shown != wanted:
            words = f"it shows other SSH host keys than a moment ago: {listed(shown)}; confirmed was {listed(wanted)}"
            return HostKeyNotConfirmed(name, words)
    if sight.changed and not (spec.pin and spec.replace_changed):
        return HostKeyChanged(name, "it shows another SSH host key than the pinned one")
    return None


def listed(fingerprints: AbstractSet[str]) -> str:
    """Return fingerprints as a sentence lists them."""
    return ", ".join(sorted(fingerprints))


async def pin_confirmed(context: RunContext, sights: Sequence[Sight]) -> list[Sight]:
    """Pin what nothing is said against, all in one write, and return what is pinned then."""
    chosen = [one for one in sights if one.error is None and one.objection is None and not one.pinned]
    if chosen:
        await context.remote.pin_host_keys([context.remote.make_pin(one.worker, one.keys, replace=one.changed) for one in chosen])
    done = {one.worker.name for one in chosen}
    return [replace(one, states=(PinState.PINNED,) * len(one.keys)) if one.worker.name in done else one for one in sights]


def report_of_sight(sight: Sight) -> pb.WorkerReport:
    """Return what is told of a worker."""
    problem = sight.error or sight.objection
    return pb.WorkerReport(
        reachable=sight.error is None,
        problem=problem.reason_on(sight.worker.name) if problem else "",
        host_keys=[key.text for key in sight.keys],
        fingerprints=[key.fingerprint for key in sight.keys],
        host_key_states=[STATES[state] for state in sight.states],
        pinned=sight.pinned,
    )
