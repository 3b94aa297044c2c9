"""In which wave a job is deployed: 0 for jobs that demand nothing, else one after the latest of those they demand."""

from collections import deque
from collections.abc import Mapping, Set


def deployment_sequence(demands: Mapping[str, Set[str]]) -> dict[str, int]:
    """Return each job's wave by longest path, in linear time. Jobs on a cycle, or behind one, are missing from the result.

    `demands` holds for every job the jobs it demands; demands of unknown jobs do not count.
    """
    demanded_by: dict[str, list[str]] = {job: [] for job in demands}
    open_demands = dict.fromkeys(demands, 0)
    for job, demanded in demands.items():
        for other in demanded & demands.keys():
            demanded_by[other].append(job)
            open_demands[job] += 1
    sequence = {job: 0 for job, count in open_demands.items() if count == 0}
    ready = deque(sequence)
    wave = dict.fromkeys(demands, 0)
    while ready:
        job = ready.popleft()
        sequence[job] = wave[job]
        for follower in demanded_by[job]:
            wave[follower] = max(wave[follower], wave[job] + 1)
            open_demands[follower] -= 1
            if open_demands[follower] == 0:
                ready.append(follower)
    return sequence


def find_cycles(demands: Mapping[str, Set[str]]) -> list[tuple[str, ...]]:
    """Return the cycles that keep jobs from having a wave, each as the jobs along it, from its first name on."""
    left = demands.keys() - deployment_sequence(demands).keys()
    found: list[tuple[str, ...]] = []
    visited: set[str] = set()
    for start in sorted(left):
        trail: list[str] = []
        places: dict[str, int] = {}
        job = start
        while job not in visited:
            visited.add(job)
            places[job] = len(trail)
            trail.append(job)
            job = min(demands[job] & left)
        if job in places:
            found.append(turn_to_first_name(trail[places[job] :]))
    return found


def turn_to_first_name(cycle: list[str]) -> tuple[str, ...]:
    """Turn a cycle so that it begins with its first name, however it was found."""
    first = cycle.index(min(cycle))
    return (*cycle[first:], *cycle[:first])
