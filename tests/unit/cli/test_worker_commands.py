"""Commands about workers as people type them: facts, trust, ping, commands on them, against a catalog of a test."""

import io
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2
from tests.unit.cli.builders import event, failure
from tests.unit.cli.conftest import Maand
from tests.unit.cli.fake_catalog import FakeCatalog, ended


def test_facts_are_written_only_when_every_worker_told_them(fake: FakeCatalog, maand: Maand, bucket: Path) -> None:
    report = run_event_pb2.WorkerReport(reachable=True, memory_mb=4096, cpu_mhz=2000)
    workers = bucket / "workspace/workers.json"
    before = workers.read_text()
    fake.play(event(worker="10.0.0.1", worker_report=report), end=ended("failed", failures=[failure("unreachable")]))
    assert maand("worker", "facts").code == 5
    assert workers.read_text() == before
    fake.play(event(worker="10.0.0.1", worker_report=report))
    assert maand("worker", "facts").code == 0
    assert workers.read_text() == ('[{"host": "10.0.0.1", "memory": "4096 mb", "cpu": "2000 mhz"}, {"host": "10.0.0.2"}]')


def host_keys(**states: "run_event_pb2.HostKeyState.ValueType") -> run_event_pb2.WorkerReport:
    """Report host keys: a fingerprint `SHA256:<name>` for each name, with its state."""
    fingerprints = [f"SHA256:{name}" for name in states]
    return run_event_pb2.WorkerReport(reachable=True, fingerprints=fingerprints, host_key_states=states.values())


def test_trust_shows_fingerprints_and_pins_only_with_a_yes(fake: FakeCatalog, maand: Maand) -> None:
    report = host_keys(abc=run_event_pb2.HOST_KEY_STATE_PINNED, xyz=run_event_pb2.HOST_KEY_STATE_CHANGED)
    fake.play(event(worker="10.0.0.1", worker_report=report))
    refused = maand("worker", "trust", "--force")
    assert refused.code == 3
    assert [line.split()[:3] for line in refused.out.splitlines()[1:]] == [
        ["10.0.0.1", "SHA256:abc", "pinned"],
        ["10.0.0.1", "SHA256:xyz", "changed"],
    ]
    assert "Pin the keys of 10.0.0.1: nobody is here to confirm" in refused.err
    assert "--yes" in refused.err
    assert maand("worker", "trust", "--yes", "--force").code == 0
    pins = [request.spec.worker_probe for request in fake.asked("CreateRun")]
    assert [(probe.pin, probe.replace_changed) for probe in pins] == [(False, False), (False, False), (True, True)]


def test_trust_has_what_was_shown_pinned_and_nothing_else(fake: FakeCatalog, maand: Maand) -> None:
    new, pinned, changed = (
        run_event_pb2.HOST_KEY_STATE_NEW,
        run_event_pb2.HOST_KEY_STATE_PINNED,
        run_event_pb2.HOST_KEY_STATE_CHANGED,
    )
    fake.play(
        event(worker="10.0.0.1", worker_report=host_keys(one=pinned, two=new)),
        event(worker="10.0.0.2", worker_report=host_keys(three=pinned)),
        event(worker="10.0.0.3", worker_report=host_keys(four=changed)),
        event(worker="10.0.0.4", worker_report=run_event_pb2.WorkerReport(problem="no SSH connection")),
    )
    maand("worker", "trust", "--yes")
    confirmed = fake.spec().worker_probe.confirmed
    assert {one.worker: list(one.fingerprints) for one in confirmed} == {"10.0.0.1": ["SHA256:one", "SHA256:two"]}


def test_trust_asks_nothing_where_nothing_can_be_pinned(fake: FakeCatalog, maand: Maand) -> None:
    unreachable = ended("failed", failures=[failure("unreachable")])
    fake.play(event(worker="10.0.0.1", worker_report=run_event_pb2.WorkerReport(problem="no SSH connection")), end=unreachable)
    said = maand("worker", "trust")
    assert said.code == 5
    assert "nobody is here" not in said.err
    assert "nothing was pinned" in said.err


@pytest.mark.parametrize("command", ["ping", "facts", "trust"])
def test_what_was_refused_shows_no_empty_table(command: str, fake: FakeCatalog, maand: Maand) -> None:
    fake.play(end=ended("failed", failures=[failure("invalid")]))
    said = maand("worker", command, "-w", "nope")
    assert said.code == 3
    assert said.out == ""
    assert not [line for line in said.err.splitlines() if line in ("no workers", "no host keys")]


@pytest.mark.parametrize(
    ("args", "command"),
    [
        (("echo hi; uptime",), "echo hi; uptime"),
        (("--", "echo", "hi"), "echo hi"),
        (("--", "grep", "-c", "a b", "/etc/motd"), "grep -c 'a b' /etc/motd"),
        (("-c", "2", "--", "echo hi | wc -c"), "echo hi | wc -c"),
    ],
)
def test_a_command_is_one_argument_or_the_words_behind_two_dashes(
    fake: FakeCatalog, maand: Maand, args: tuple[str, ...], command: str
) -> None:
    assert maand("run_command", *args).code == 0
    assert fake.spec().run_command.command == command


@pytest.mark.parametrize("args", [("echo", "hi"), ("echo", "--", "hi")])
def test_several_words_are_refused_with_the_way_to_write_them(fake: FakeCatalog, maand: Maand, args: tuple[str, ...]) -> None:
    said = maand("run_command", *args)
    assert said.code == 2
    assert "help: maand run_command 'echo hi', or: maand run_command -- echo hi" in said.err
    assert not fake.asked("CreateRun")


def test_run_command_reads_a_script_from_a_file_or_standard_input_and_refuses_two(
    fake: FakeCatalog, maand: Maand, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bucket / "script").write_text("one\ntwo\n")
    maand("run_command", "-f", "script", "-l", "api", "-l", "db")
    assert fake.spec().run_command.command == "one\ntwo\n"
    assert list(fake.spec().run_command.labels) == ["api", "db"]
    assert maand("run_command").code == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("three\n"))
    maand("run_command", "-f", "-")
    assert fake.spec().run_command.command == "three\n"
    assert maand("run_command", "x", "-f", "script").code == 2
