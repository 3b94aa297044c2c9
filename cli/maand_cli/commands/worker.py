"""`maand worker list|ping|facts|trust|adopt|forget`."""

from typing import TYPE_CHECKING, Any

import click

from maand_cli.click_groups import LazyGroup
from maand_cli.coroutines import runs_coroutine
from maand_cli.flags import Flags
from maand_cli.options import complete_labels, list_option, workers_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maand_cli.remote.session import Session
    from maand_cli.runs.follow import Followed
    from maand_contracts.catalog.v1 import run_event_pb2

worker = LazyGroup(
    name="worker", help="List workers, reach them, read their facts, pin host keys, adopt workers, give up lost ones."
)


@worker.command("list")
@list_option("--labels", "-l", help="Only workers with any of these labels.", complete=complete_labels)
@runs_coroutine
async def list_workers(flags: Flags, *, labels: tuple[str, ...]) -> int:
    """List the workers that were built."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.listings import worker_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await worker_rows(session.catalog, labels=labels)
    show_rows(flags, "workers", ("name", "hostname", "position", "labels", "memory_mb", "cpu_mhz", "disabled"), rows)
    return 0


@worker.command()
@workers_option
@runs_coroutine
async def ping(flags: Flags, *, workers: tuple[str, ...]) -> int:
    """Reach workers by SSH and look for what maand needs there."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import conclude_run

    async with open_session(flags) as session:
        followed = await run_probe(session, "PING", workers)
        if flags.is_human and followed.view.reports:
            rows = [
                {
                    "worker": name,
                    "reachable": report.reachable,
                    "round_trip_seconds": round(report.round_trip_seconds, 3),
                    "problem": report.problem,
                }
                for name, report in sorted(followed.view.reports.items())
            ]
            show_rows(flags, "workers", ("worker", "reachable", "round_trip_seconds", "problem"), rows)
        return conclude_run(session, followed)


@worker.command()
@workers_option
@runs_coroutine
async def facts(flags: Flags, *, workers: tuple[str, ...]) -> int:
    """Read memory and CPU of workers and write them into workspace/workers.json: all of them or, when one fails, none."""
    from maand_cli.exits import Exit
    from maand_cli.local.workers_file import Facts, write_facts
    from maand_cli.output.rows import print_note, show_rows
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import conclude_run

    async with open_session(flags) as session:
        followed = await run_probe(session, "FACTS", workers)
        reports = followed.view.reports
        if flags.is_human and reports:
            rows = [
                {"worker": name, "memory_mb": one.memory_mb or None, "cpu_mhz": one.cpu_mhz or None, "problem": one.problem}
                for name, one in sorted(reports.items())
            ]
            show_rows(flags, "workers", ("worker", "memory_mb", "cpu_mhz", "problem"), rows)
        code = conclude_run(session, followed)
        if code != Exit.DONE:
            print_note(flags, "workspace/workers.json was left as it is")
            return code
        found = {name: Facts(memory_mb=one.memory_mb, cpu_mhz=one.cpu_mhz) for name, one in reports.items()}
        changed = write_facts(session.bucket.workspace / "workers.json", found)
        print_note(
            flags,
            "workspace/workers.json written; maand build takes it in" if changed else "workspace/workers.json is up to date",
        )
        return code


@worker.command()
@workers_option
@click.option("--force", is_flag=True, help="Replace changed keys too. Make sure first that they changed for a good reason.")
@runs_coroutine
async def trust(flags: Flags, *, workers: tuple[str, ...], force: bool) -> int:
    """Show the SSH host keys of workers and pin them: just those that were shown.

    A worker whose pinned key changed is refused unless --force: somebody may be in between.
    """
    from maand_cli.exits import Exit
    from maand_cli.local.ssh_key import find_stray_public_key
    from maand_cli.output.rows import ask_confirmation, print_note, show_rows
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import conclude_run
    from maand_contracts.catalog.v1 import run_spec_pb2

    async with open_session(flags) as session:
        if session.is_local and (stray := find_stray_public_key(session.bucket, session.conf.ssh_key)):
            print_note(flags, f"warning: {stray}")
        seen = await run_probe(session, "HOST_KEYS", workers)
        reports = dict(sorted(seen.view.reports.items()))
        if flags.is_human and reports:
            rows = [
                {"worker": name, "fingerprint": fingerprint, "state": state, "problem": report.problem}
                for name, report in reports.items()
                for fingerprint, state in host_keys_of(report) or [("", "")]
            ]
            show_rows(flags, "host_keys", ("worker", "fingerprint", "state", "problem"), rows)
        chosen = {name: report for name, report in reports.items() if has_keys_to_pin(report, force=force)}
        if not chosen:
            code = conclude_run(session, seen)
            print_note(flags, "every key is pinned" if code == Exit.DONE else "nothing was pinned")
            return code
        ask_confirmation(flags, f"Pin the keys of {format_names(list(chosen))}?")
        confirmed = [
            run_spec_pb2.ConfirmedHostKeys(worker=name, fingerprints=report.fingerprints) for name, report in chosen.items()
        ]
        pinned = await run_probe(session, "HOST_KEYS", workers, pin=True, replace_changed=force, confirmed=confirmed)
        count = sum(report.pinned for report in pinned.view.reports.values())
        print_note(flags, f"keys of {count} of {len(pinned.view.reports)} workers are pinned")
        return conclude_run(session, pinned)


def host_keys_of(report: "run_event_pb2.WorkerReport") -> list[tuple[str, str]]:
    """Return the fingerprints a worker showed, each with how it compares with what is pinned."""
    from maand_contracts.catalog.v1 import run_event_pb2

    prefix = "HOST_KEY_STATE_"
    states = [run_event_pb2.HostKeyState.Name(state).removeprefix(prefix).lower() for state in report.host_key_states]
    return list(zip(report.fingerprints, states, strict=False))  # an older executor tells no states: then nothing is pinned


def has_keys_to_pin(report: "run_event_pb2.WorkerReport", *, force: bool) -> bool:
    """Whether a worker shows keys that are not pinned, and that may be."""
    states = {state for _, state in host_keys_of(report)}
    return bool(states - {"pinned"}) and (force or "changed" not in states)


MOST_NAMES = 5


def format_names(names: "Sequence[str]") -> str:
    """Name a few workers, count many."""
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} workers"


@worker.command()
@workers_option
@click.option("--force", is_flag=True, help="Adopt workers that name another bucket too.")
@runs_coroutine
async def adopt(flags: Flags, *, workers: tuple[str, ...], force: bool) -> int:
    """Show whose workers say they are, and take over those that name another worker or owner.

    For a machine with a new address, and for a copy of a bucket that shall act on the fleet in the original's place.
    """
    from maand_cli.output.rows import ask_confirmation, print_note, show_rows
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import conclude_run

    async with open_session(flags) as session:
        seen = await run_probe(session, "OWNER", workers)
        reports = sorted(seen.view.reports.items())
        foreign = {name: report.mark for name, report in reports if report.HasField("mark") and not report.mark.is_ours}
        if not foreign:
            code = conclude_run(session, seen)
            print_note(flags, "nothing to adopt: no worker names another worker, bucket or owner")
            return code
        rows = [
            {
                "worker": name,
                "names_worker": mark.known_as or mark.worker or mark.worker_id,
                "names_bucket": mark.bucket_id,
                "names_owner": mark.owner_id,
                "jobs": list(mark.jobs),
            }
            for name, mark in foreign.items()
        ]
        if flags.is_human:
            show_rows(flags, "foreign", ("worker", "names_worker", "names_bucket", "names_owner", "jobs"), rows)
        ask_confirmation(flags, f"Adopt {', '.join(foreign)}, and have whoever acted there before refused?")
        adopted = await run_probe(session, "OWNER", tuple(foreign), adopt=True, adopt_other_bucket=force)
        marks = [report.mark for report in adopted.view.reports.values()]
        print_note(flags, f"{sum(mark.is_ours for mark in marks)} of {len(foreign)} workers are adopted; `maand deploy` goes on")
        return conclude_run(session, adopted)


@worker.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST…")
@click.option("--lost", is_flag=True, help="Say that these workers are lost: they are never contacted again.")
@runs_coroutine
async def forget(flags: Flags, *, hosts: tuple[str, ...], lost: bool) -> int:
    """Give up workers that left workers.json and cannot be cleaned up.

    Nothing is stopped or deleted there. What was placed on them counts as stopped, and `maand gc` forgets it without contact.
    """
    from maand_cli.errors import Usage
    from maand_cli.options import spell_worker
    from maand_cli.output.rows import ask_confirmation, print_note, show_rows
    from maand_cli.remote.listings import allocation_rows, forget_workers, worker_rows
    from maand_cli.remote.session import open_session

    if not lost:
        raise Usage("a worker that can be reached is cleaned up by a deploy", help="add --lost for one that is lost")
    hosts = tuple(map(spell_worker, hosts))
    async with open_session(flags) as session:
        if present := {row["name"] for row in await worker_rows(session.catalog)}.intersection(hosts):
            await forget_workers(session.catalog, sorted(present))  # refused: there is nothing to ask about
        placed = await allocation_rows(session.catalog, workers=hosts, include_removed=True)
        rows = [one for one in placed if one["removed"]]
        if rows or not flags.is_human:
            show_rows(flags, "given_up", ("job", "worker", "state", "current_version"), rows)
        ask_confirmation(flags, f"Give up {', '.join(hosts)} with {len(rows)} allocations, without stopping anything there?")
        await forget_workers(session.catalog, hosts)
    print_note(flags, f"{', '.join(hosts)} given up; `maand deploy` goes on without, `maand gc` forgets what was there")
    return 0


async def run_probe(session: "Session", what: str, workers: tuple[str, ...], **more: Any) -> "Followed":
    """Run one probe over workers and follow it."""
    from maand_cli.runs.follow import follow_run, start_run
    from maand_contracts.catalog.v1 import run_spec_pb2

    probe = run_spec_pb2.WorkerProbe.Value(f"WORKER_PROBE_{what}")
    spec = run_spec_pb2.WorkerProbeSpec(probe=probe, workers=workers, **more)
    return await follow_run(session, await start_run(session, run_spec_pb2.RunSpec(worker_probe=spec)))
