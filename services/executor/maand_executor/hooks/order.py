"""Rollout order: which allocation comes before which, whatever part of the job is concerned.

A phase takes the sub-sequence of its own candidates, so a leader that a hook put last stays last in a partial rollout.
"""

from collections.abc import Iterable, Sequence

from maand_executor.facts import Allocation


def in_rollout_order(allocations: Iterable[Allocation], hosts: Sequence[str]) -> tuple[Allocation, ...]:
    """Sort allocations as `hosts` says; those it does not name (disabled, removed) follow by index, then host."""
    position = {host: number for number, host in enumerate(hosts)}
    last = len(position)
    return tuple(sorted(allocations, key=lambda one: (position.get(one.worker, last), one.index, one.worker)))
