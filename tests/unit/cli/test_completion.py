"""TAB: what the workspace names, what the catalog knows where it runs, and lists of words in every shell."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maand_cli.options import RUN_KINDS, RUN_STATES
from maand_contracts.catalog.v1 import kv_pb2, run_pb2, run_spec_pb2, secret_pb2
from tests.unit.cli.fake_catalog import RUN_ID, FakeCatalog


@pytest.fixture
def workspace(bucket: Path) -> Path:
    """A workspace with labels, and with hooks of which some are registered for cli."""
    workers = [{"host": "10.0.0.1", "labels": ["app", "arm"]}, {"host": "10.0.0.2", "labels": ["db"]}, {"host": "10.0.0.3"}]
    (bucket / "workspace/workers.json").write_text(json.dumps(workers))
    hooks = {"hook_migrate": {"executed_on": ["pre_deploy", "cli"]}, "hook_active": {"executed_on": ["post_deploy"]}}
    (bucket / "workspace/jobs/api/manifest.json").write_text(json.dumps({"hooks": hooks}))
    for job, text in (("db", json.dumps({"hooks": {"hook_dump": {"executed_on": ["cli"]}}})), ("broken", "{"), ("odd", "[]")):
        (bucket / "workspace/jobs" / job).mkdir()
        (bucket / f"workspace/jobs/{job}/manifest.json").write_text(text)
    return bucket


def complete(bucket: Path, *words: str) -> list[str]:
    """Return what TAB offers for the last of these words."""
    completing = {"_MAAND_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("maand", *words)), "COMP_CWORD": str(len(words))}
    ended = subprocess.run(
        [sys.executable, "-m", "maand_cli"], env=os.environ | completing, cwd=bucket, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""
    return [line.partition(",")[2] for line in ended.stdout.splitlines() if line]


WORDS: dict[tuple[str, ...], list[str]] = {
    ("run_command", "-l", "a"): ["app", "arm"],
    ("worker", "list", "-l", "app,"): ["app,app", "app,arm", "app,db"],
    ("runs", "list", "-s", "failed,run"): ["failed,running"],
    ("runs", "list", "-k", "de"): ["deploy"],
    ("hooks", "hook_"): ["hook_dump", "hook_migrate"],
    ("hooks", "hook_migrate", ""): ["api"],
    ("hooks", "hook_dump", ""): ["db"],
    ("deploy", "--jobs", "api,d"): ["api,db"],
}


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_what_the_workspace_names_is_offered_without_any_service(workspace: Path, words: tuple[str, ...]) -> None:
    assert complete(workspace, *words) == WORDS[words]


@pytest.fixture
def known(fake: FakeCatalog) -> None:
    """A catalog that knows a run, values and secrets."""
    fake.answers["ListRuns"] = run_pb2.ListRunsResponse(runs=[run_pb2.Run(run_id=RUN_ID), run_pb2.Run(run_id="ffff")])
    values = [("vars/job/api", "one"), ("vars/job/api", "two"), ("vars/job/api2", "three")]
    entries = [kv_pb2.Entry(namespace=namespace, key=key) for namespace, key in values]
    fake.answers["ListEntries"] = kv_pb2.ListEntriesResponse(entries=entries)
    fake.answers["ListSecrets"] = secret_pb2.ListSecretsResponse(secrets=[secret_pb2.SecretInfo(key="token")])


KNOWN: dict[tuple[str, ...], list[str]] = {
    **{("runs", command, "0192"): [RUN_ID] for command in ("show", "watch", "cancel", "resume")},
    ("logs", ""): [RUN_ID, "ffff"],
    ("kv", "get", "vars/"): ["vars/job/api", "vars/job/api2"],
    ("kv", "get", "vars/job/api", ""): ["one", "two"],
    ("kv", "history", "vars/job/api", "t"): ["two"],
    ("secret", "reveal", "api", ""): ["token"],
}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("words", KNOWN, ids=" ".join)
def test_what_the_catalog_knows_is_offered_where_it_runs(bucket: Path, words: tuple[str, ...]) -> None:
    assert complete(bucket, *words) == KNOWN[words]


def test_without_services_nothing_is_offered_and_none_is_started(bucket: Path) -> None:
    assert complete(bucket, "runs", "show", "") == []
    assert not (bucket / "run").exists()


@pytest.mark.parametrize(("words", "enum"), [(RUN_STATES, run_pb2.RunState), (RUN_KINDS, run_spec_pb2.RunKind)])
def test_the_words_offered_are_those_of_the_contract(words: tuple[str, ...], enum: Any) -> None:
    assert [f"{enum.Name(0).removesuffix('UNSPECIFIED')}{word.upper()}" for word in words] == list(enum.keys())[1:]


def test_fish_offers_words_of_a_comma_separated_list(workspace: Path, tmp_path: Path) -> None:
    maand = [sys.executable, "-m", "maand_cli", "completion", "fish"]
    script = subprocess.run(maand, capture_output=True, text=True, check=True).stdout
    assert 'string split --max 1 ","' in script
    if (fish := shutil.which("fish")) is None:  # the script was looked at; who has no fish cannot run it
        return
    (tmp_path / "maand.fish").write_text(script)
    line = f"source {tmp_path}/maand.fish; complete -C 'maand deploy --jobs api,d'"
    around = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    offered = subprocess.run([fish, "-c", line], cwd=workspace, env=around, capture_output=True, text=True, check=True)
    assert offered.stdout.split() == ["api,db"]
