"""Allocations: reading them, moving them for a run, and forgetting those that are gone."""

import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from maand_catalog.database.statements import ROWS_AT_ONCE, in_chunks, one_of, put_rows, select_page
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound
from maand_catalog.rules.build.allocations import (
    Allocation,
    AllocationState,
    MoveNotAllowed,
    check_allocation_move,
    owes_start,
    ports_held_after,
    with_state,
)
from maand_catalog.store.tables.fleet import allocation_moves, allocations, certificates, deployed_files, jobs, ports, workers

MOVES_KEPT = 100
"""Moves of an allocation that gc leaves: a few dozen deploys."""

FIELDS = tuple(field.name for field in fields(Allocation))


@dataclass(frozen=True, kw_only=True)
class DeployedFile:
    """One path on a worker, as it was last promoted."""

    path: str
    mode: int
    sha256: bytes


@dataclass(frozen=True, kw_only=True)
class AllocationMove:
    """What a run makes of one allocation. Empty values leave what is kept as it is."""

    allocation_id: str
    to: AllocationState
    message: str = ""
    current_version: str = ""
    deployed_sha256: bytes = b""
    files: tuple[DeployedFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AllocationFilter:
    """Which allocations are meant; empty collections mean all."""

    jobs: Collection[str] = ()
    workers: Collection[str] = ()
    include_removed: bool = False


def list_allocations(
    tx: Transaction, bucket_id: str, wanted: AllocationFilter, *, after: tuple[Any, ...] | None = None, limit: int | None = None
) -> list[Allocation]:
    """Return allocations by job, index and id; `after` is that of the last one seen."""
    a = allocations.c
    query = select_page(
        select(allocations).where(a.bucket_id == bucket_id), a.job, a.position, a.allocation_id, after=after, limit=limit
    )
    if wanted.jobs:
        query = query.where(one_of(tx, a.job, list(wanted.jobs)))
    if wanted.workers:
        query = query.where(one_of(tx, a.worker, list(wanted.workers)))
    if not wanted.include_removed:
        query = query.where(a.removed.is_(False))
    return [allocation_from_row(row) for row in tx.connection.execute(query)]


def find_allocations(
    tx: Transaction, bucket_id: str, allocation_ids: Sequence[str], *, locked: bool = False
) -> dict[str, Allocation]:
    """Return allocations by id. NotFound names the first that does not exist."""
    found: dict[str, Allocation] = {}
    for chunk in in_chunks(sorted(set(allocation_ids))):
        query = (
            select(allocations)
            .where(allocations.c.bucket_id == bucket_id, one_of(tx, allocations.c.allocation_id, chunk))
            .order_by(allocations.c.allocation_id)
        )
        rows = tx.connection.execute(query.with_for_update() if locked else query)
        found.update({row.allocation_id: allocation_from_row(row) for row in rows})
    unknown = next((each for each in allocation_ids if each not in found), None)
    if unknown is not None:
        raise NotFound(f"there is no allocation {unknown[:64]}")
    return found


def allocation_from_row(row: Row[tuple[object, ...]]) -> Allocation:
    """Read one row."""
    values = {name: getattr(row, name) for name in FIELDS}
    for name in ("target_sha256", "deployed_sha256", "promoted_target_sha256"):
        values[name] = bytes(values[name])
    held_ports = tuple(int(number) for number in values["held_ports"].split(",") if number)
    return Allocation(**values | {"state": AllocationState(values["state"]), "held_ports": held_ports})


def row_from_allocation(bucket_id: str, allocation: Allocation) -> dict[str, object]:
    """Return an allocation as a row."""
    values = {name: getattr(allocation, name) for name in FIELDS}
    held_ports = ",".join(map(str, allocation.held_ports))
    return {"bucket_id": bucket_id, **values, "state": str(allocation.state), "held_ports": held_ports}


def put_allocations(
    tx: Transaction, bucket_id: str, after: Iterable[Allocation], before: Mapping[str, Allocation], *, run_id: str
) -> None:
    """Write allocations, and a line of history for each whose state changed."""
    after = list(after)
    put_rows(tx, allocations, (row_from_allocation(bucket_id, allocation) for allocation in after))
    history = [
        {
            "bucket_id": bucket_id,
            "allocation_id": each.allocation_id,
            "number": each.moves,
            "from_state": str(before[each.allocation_id].state),
            "to_state": str(each.state),
            "moved_at": each.state_since,
            "run_id": run_id,
            "message": each.message,
        }
        for each in after
        if each.allocation_id in before and before[each.allocation_id].moves != each.moves
    ]
    for chunk in in_chunks(history, ROWS_AT_ONCE):
        tx.connection.execute(insert(allocation_moves), list(chunk))


def move_allocations(tx: Transaction, bucket_id: str, moves: Sequence[AllocationMove], *, run_id: str) -> None:
    """Move allocations, all or none. Staying in a state with equal content changes nothing."""
    before = find_allocations(tx, bucket_id, [move.allocation_id for move in moves], locked=True)
    if len(before) < len(moves):
        raise MoveNotAllowed("an allocation is moved twice in one call")
    built = read_ports_of_jobs(tx, bucket_id, {each.job for each in before.values()})
    after = [apply_move(before[move.allocation_id], move, tx, run_id=run_id, built=built) for move in moves]
    changed = [each for each in after if each != before[each.allocation_id]]
    put_allocations(tx, bucket_id, changed, before, run_id=run_id)
    put_rows(
        tx,
        deployed_files,
        [
            {"bucket_id": bucket_id, "allocation_id": move.allocation_id, "files": pack_files(move.files)}
            for move in moves
            if move.files
        ],
    )


def read_ports_of_jobs(tx: Transaction, bucket_id: str, names: Collection[str]) -> dict[str, list[int]]:
    """Return the port numbers that the last build gave each of these jobs."""
    found: dict[str, list[int]] = {}
    for chunk in in_chunks(sorted(names)):
        wanted = select(ports.c.job, ports.c.number).where(ports.c.bucket_id == bucket_id, one_of(tx, ports.c.job, chunk))
        for job, number in tx.connection.execute(wanted):
            found.setdefault(job, []).append(number)
    return found


def apply_move(
    allocation: Allocation, move: AllocationMove, tx: Transaction, *, run_id: str, built: Mapping[str, Sequence[int]]
) -> Allocation:
    """Return the allocation after a move; `MoveNotAllowed`."""
    check_allocation_move(allocation, move.to)
    current = move.current_version or allocation.current_version
    now = replace(
        allocation,
        current_version=current,
        previous_version=allocation.previous_version if current == allocation.current_version else allocation.current_version,
        deployed_sha256=move.deployed_sha256 or allocation.deployed_sha256,
        start_owed=owes_start(allocation, move.to),
        held_ports=ports_held_after(allocation, move.to, built.get(allocation.job, ())),
    )
    if move.to is AllocationState.PROMOTED:
        now = replace(now, promoted_target_sha256=allocation.target_sha256)
    if now == allocation and move.to == allocation.state:
        return allocation
    return with_state(now, move.to, move.message, tx.now, run_id=run_id)


def mark_post_deploy_owed(tx: Transaction, bucket_id: str, names: Sequence[str], *, owed: bool) -> None:
    """Remember whether jobs still owe `post_deploy`."""
    for chunk in in_chunks(names):
        owing = update(allocations).where(allocations.c.bucket_id == bucket_id, one_of(tx, allocations.c.job, chunk))
        tx.connection.execute(owing.where(allocations.c.post_deploy_owed.is_not(owed)).values(post_deploy_owed=owed))


def list_deployed_files(
    tx: Transaction, bucket_id: str, allocation_ids: Sequence[str]
) -> list[tuple[str, tuple[DeployedFile, ...]]]:
    """Return the files last promoted, for the allocations that were promoted once, in the order asked."""
    packed: dict[str, bytes] = {}
    for chunk in in_chunks(allocation_ids):
        query = select(deployed_files.c.allocation_id, deployed_files.c.files).where(
            deployed_files.c.bucket_id == bucket_id, one_of(tx, deployed_files.c.allocation_id, chunk)
        )
        packed.update({row.allocation_id: bytes(row.files) for row in tx.connection.execute(query)})
    return [(each, unpack_files(packed[each])) for each in dict.fromkeys(allocation_ids) if each in packed]


def pack_files(files: Iterable[DeployedFile]) -> bytes:
    """Return a file list in the form in which it is kept."""
    listed = [[file.path, file.mode, file.sha256.hex()] for file in files]
    return zlib.compress(json.dumps(listed, separators=(",", ":")).encode(), 1)


def unpack_files(packed: bytes) -> tuple[DeployedFile, ...]:
    """Read a kept file list."""
    listed = json.loads(zlib.decompress(packed))
    return tuple(DeployedFile(path=path, mode=mode, sha256=bytes.fromhex(sha256)) for path, mode, sha256 in listed)


def forget_allocations(tx: Transaction, bucket_id: str, allocation_ids: Sequence[str]) -> list[Allocation]:
    """Forget allocations that are removed and were stopped, with their certificates; FAILED_PRECONDITION for any other."""
    found = find_allocations(tx, bucket_id, allocation_ids, locked=True)
    for each in found.values():
        if not (each.removed and each.state is AllocationState.REMOVED):
            raise MoveNotAllowed(
                f"{each.job} on {each.worker} is {each.state} and cannot be forgotten",
                code="not_stopped",
                help="deploy first: it stops what left the workspace",
            )
    for chunk in in_chunks(list(found)):
        tx.connection.execute(
            delete(allocations).where(allocations.c.bucket_id == bucket_id, one_of(tx, allocations.c.allocation_id, chunk))
        )
    places = [(each.job, each.worker) for each in found.values()]
    for places_chunk in in_chunks(places):
        c = certificates.c
        gone = delete(certificates).where(c.bucket_id == bucket_id, one_of(tx, (c.job, c.worker), places_chunk))
        tx.connection.execute(gone)
    return list(found.values())


def forget_emptied_jobs_and_workers(tx: Transaction, bucket_id: str) -> tuple[list[str], list[str]]:
    """Forget jobs and workers that left the workspace and have no allocation any more; return their names."""
    gone_jobs = delete(jobs).where(
        jobs.c.bucket_id == bucket_id,
        jobs.c.removed.is_(True),
        jobs.c.name.not_in(select(allocations.c.job).where(allocations.c.bucket_id == bucket_id)),
    )
    gone_workers = delete(workers).where(
        workers.c.bucket_id == bucket_id,
        workers.c.removed.is_(True),
        workers.c.name.not_in(select(allocations.c.worker).where(allocations.c.bucket_id == bucket_id)),
    )
    job_names = tx.connection.scalars(gone_jobs.returning(jobs.c.name))
    worker_names = tx.connection.scalars(gone_workers.returning(workers.c.name))
    return list(job_names), list(worker_names)


def trim_moves(tx: Transaction, bucket_id: str) -> None:
    """Forget all but the newest moves of each allocation. For gc."""
    m, a = allocation_moves.c, allocations.c
    made = select(a.moves).where(a.bucket_id == m.bucket_id, a.allocation_id == m.allocation_id).correlate(allocation_moves)
    old = m.number <= made.scalar_subquery() - MOVES_KEPT
    tx.connection.execute(delete(allocation_moves).where(m.bucket_id == bucket_id, old))
