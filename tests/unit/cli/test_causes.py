"""Failures of one cause on many workers are told once, with the command for all of them."""

from typing import Any

import pytest

from maand_cli.output.causes import Failure, fold_workers, group_failures
from maand_cli.output.summary import Ending, summary_lines

TRUST = "compare the fingerprint, then run `maand worker trust -w {}`"


def unpinned(worker: str, key: str = "SHA256:abc+/=", **fields: Any) -> Failure:
    message = f"its SSH host key is not pinned (ssh-ed25519 {key})"
    return Failure(kind="authentication", worker=worker, step="preflight", message=message, help=TRUST.format(worker), **fields)


def shown(*failures: Failure, next_command: str = "maand deploy") -> list[str]:
    ending = Ending(kind="deploy", run_id="1", state="failed", failures=failures, next_command=next_command)
    return list(summary_lines(ending))[1:]


def test_twenty_workers_whose_keys_are_not_pinned_are_three_lines() -> None:
    assert shown(*(unpinned(f"127.0.0.{number}", f"SHA256:{number}") for number in range(2, 22))) == [
        "  failed: preflight on 20 workers (127.0.0.2 … .21): its SSH host key is not pinned (ssh-ed25519 …)",
        "    help: compare the fingerprint, then run `maand worker trust`",
        "  next: maand worker trust, then maand deploy",
    ]


def test_a_few_workers_are_named_in_the_command() -> None:
    assert shown(unpinned("10.0.0.1"), unpinned("10.0.0.12")) == [
        "  failed: preflight on 10.0.0.1, 10.0.0.12: its SSH host key is not pinned (ssh-ed25519 SHA256:abc+/=)",
        "    help: compare the fingerprint, then run `maand worker trust -w 10.0.0.1,10.0.0.12`",
        "  next: maand worker trust -w 10.0.0.1,10.0.0.12, then maand deploy",
    ]


def test_one_worker_is_told_as_it_is_and_stands_once_in_the_line() -> None:
    one = Failure(kind="command", job="api", worker="10.0.0.1", step="copy", message="10.0.0.1: no space", help="see 10.0.0.1")
    assert shown(one) == [
        "  failed: api copy on 10.0.0.1: no space",
        "    help: see 10.0.0.1",
        "  next: maand deploy",
    ]


@pytest.mark.parametrize(("worker", "address"), [("10.0.0.1", "10.0.0.1:22"), ("fd00::1", "[fd00::1]:22")])
def test_the_address_that_could_not_be_reached_is_the_line_s_own(worker: str, address: str) -> None:
    one = Failure(kind="unreachable", worker=worker, step="preflight", message=f"no SSH connection to {address}: refused")
    assert shown(one)[0] == f"  failed: preflight on {worker}: no SSH connection to port 22: refused"


def test_the_worker_in_the_text_keeps_no_group_apart() -> None:
    failures = [
        Failure(
            kind="command",
            worker=worker,
            message=f"cannot reach {worker}:80 (not 10.0.0.10)",
            help=f"where {worker} is lost: `maand worker forget {worker} --lost`",
            last_lines=(f"{worker} said no",),
        )
        for worker in ("10.0.0.1", "10.0.0.2")
    ]
    (group,) = group_failures([*failures, failures[0]])
    assert (group.workers, group.size) == (("10.0.0.1", "10.0.0.2"), 3)
    assert group.cause.help == "where each of them is lost: `maand worker forget 10.0.0.1 10.0.0.2 --lost`"
    assert group.cause.last_lines == ("each worker said no",)
    assert len(group_failures([*failures[:1], Failure(kind="command", worker="10.0.0.2", message="else")])) == 2


def test_a_command_that_replaces_something_names_everybody() -> None:
    help_ = "if it was reinstalled, run `maand worker trust -w {} --force`"
    workers = [f"10.0.0.{number}" for number in range(1, 21)]
    failures = [Failure(kind="authentication", worker=worker, message="changed", help=help_.format(worker)) for worker in workers]
    assert shown(*failures)[-1] == f"  next: maand worker trust -w {','.join(workers)} --force, then maand deploy"


def test_what_no_single_command_mends_names_the_run_s_next_command() -> None:
    ping = "check that it is up; `maand worker ping -w 10.0.0.2` tries again"
    unreachable = Failure(kind="unreachable", worker="10.0.0.2", message="no SSH connection to port 22", help=ping)
    assert shown(unreachable)[-1] == "  next: maand deploy"
    assert shown(unpinned("10.0.0.1"), unreachable)[-1] == "  next: maand deploy"
    blocked = Failure(kind="blocked", job="web", message="blocked: api, which it demands, failed")
    assert shown(unpinned("10.0.0.1"), blocked)[-1] == "  next: maand worker trust -w 10.0.0.1, then maand deploy"
    assert shown(unpinned("10.0.0.1"), next_command="")[-1] == "  next: maand worker trust -w 10.0.0.1"


FOLDED = {
    "a few": (["b", "a"], "b, a"),
    "in a row": ([f"10.0.0.{n}" for n in range(8, 15)], "7 workers (10.0.0.8 … .14)"),
    "two rows and one": (
        ["10.0.1.1", *(f"10.0.0.{n}" for n in (1, 2, 3, 9, 10, 11))],
        "7 workers (10.0.0.1 … .3, 10.0.0.9 … .11, 10.0.1.1)",
    ),
    "pairs stay": (
        ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.7", "10.0.0.9", "10.0.0.11"],
        "7 workers (10.0.0.1, 10.0.0.2, 10.0.0.4, 10.0.0.5, 10.0.0.7, 10.0.0.9 and 1 more)",
    ),
    "names with numbers": ([f"web{n:02}.example" for n in range(7, 14)], "7 workers (web07.example … web13.example)"),
    "names without": (list("gfedcba"), "7 workers (a, b, c, d, e, f and 1 more)"),
    "IPv6": ([f"fd00::{n}" for n in range(1, 8)], "7 workers (fd00::1 … fd00::7)"),
}


@pytest.mark.parametrize("case", FOLDED)
def test_many_workers_are_counted_and_folded(case: str) -> None:
    workers, told = FOLDED[case]
    assert fold_workers(workers) == told
