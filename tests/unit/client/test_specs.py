"""Typed arguments become exactly the contract's RunSpec."""

from datetime import timedelta
from typing import get_args

import pytest

from maand_client import specs
from maand_contracts.catalog.v1 import run_spec_pb2 as pb


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (specs.build("s1"), 'build { snapshot_id: "s1" }'),
        (specs.deploy(), "deploy { }"),
        (specs.deploy(jobs=["api", "web"], dry_run=True), 'deploy { jobs: "api" jobs: "web" dry_run: true }'),
        (
            specs.deploy(force=True, sync_only=True, skip_unreachable=True, build_snapshot_id="s1"),
            'deploy { force: true sync_only: true skip_unreachable: true build_snapshot_id: "s1" }',
        ),
        (specs.hooks("hook_x", job="api", args=["-v"]), 'hooks { hook: "hook_x" job: "api" args: "-v" }'),
        (
            specs.run_command("uptime", workers=["a"], labels=["db"], concurrency=2, command_timeout=timedelta(seconds=1.5)),
            'run_command { command: "uptime" workers: "a" labels: "db" concurrency: 2 command_timeout_seconds: 2 }',
        ),
        (specs.health_check(jobs=["api"], wait=True), 'health_check { jobs: "api" wait: true }'),
        (
            specs.job_control("api", "run", workers=["a"], target="backup", batch=1),
            'job_control { job: "api" action: JOB_ACTION_RUN workers: "a" target: "backup" batch: 1 }',
        ),
        (
            specs.probe_workers("host_keys", workers=["a"], pin=True, replace_changed=True, confirmed={"a": ["SHA256:x"]}),
            'worker_probe { probe: WORKER_PROBE_HOST_KEYS workers: "a" pin: true replace_changed: true '
            'confirmed { worker: "a" fingerprints: "SHA256:x" } }',
        ),
        (specs.collect_garbage(retain_days=30, dry_run=True), "gc { retain_days: 30 dry_run: true }"),
    ],
)
def test_a_specification_is_what_was_said(spec: pb.RunSpec, text: str) -> None:
    assert " ".join(str(spec).split()) == text


def test_every_kind_of_run_can_be_asked_for() -> None:
    made = [
        specs.build("s"),
        specs.deploy(),
        specs.hooks("h"),
        specs.run_command("c"),
        specs.health_check(),
        specs.job_control("j", "start"),
        specs.probe_workers("ping"),
        specs.collect_garbage(retain_days=1),
    ]
    kinds = {field.name for field in pb.RunSpec.DESCRIPTOR.oneofs_by_name["spec"].fields}
    assert {spec.WhichOneof("spec") for spec in made} == kinds


def test_every_action_and_probe_of_the_contract_has_a_word() -> None:
    assert {specs.ACTIONS[word] for word in get_args(specs.Action)} == set(pb.JobAction.values()) - {0}
    assert {specs.PROBES[word] for word in get_args(specs.Probe)} == set(pb.WorkerProbe.values()) - {0}


def test_a_limit_is_rounded_up_to_whole_seconds() -> None:
    assert [specs.whole_seconds(timedelta(seconds=each)) for each in (0, 0.001, 1, 1.2)] == [0, 1, 1, 2]
