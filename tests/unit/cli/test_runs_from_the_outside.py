"""Commands that start runs, against a catalog of canned answers: what is asked, what is shown, how it ends."""

import json
import re
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from maand_contracts.catalog.v1 import bucket_pb2, run_pb2, run_spec_pb2, workspace_pb2
from maand_contracts.common.v1 import error_pb2
from maand_wire.errors import RemoteError
from tests.unit.cli.builders import at, failure, finished, output, planned
from tests.unit.cli.conftest import BUCKET_ID, Maand
from tests.unit.cli.fake_catalog import RUN_ID, FakeCatalog, Refusal, ended


def test_deploy_asks_for_what_was_typed(fake: FakeCatalog, maand: Maand) -> None:
    assert (
        maand("deploy", "--jobs", "api,database", "--force", "--keep-going", "--timeout", "5m", "--lock-timeout", "30").code == 0
    )
    asked = fake.asked("CreateRun")[0]
    assert list(asked.spec.deploy.jobs) == ["api", "database"]
    assert (asked.spec.deploy.force, asked.spec.keep_going, asked.spec.deploy.dry_run) == (True, True, False)
    assert (asked.spec.timeout_seconds, asked.lock_timeout_seconds) == (300, 30)
    assert asked.bucket_id == BUCKET_ID
    assert "@" in asked.requested_by


def test_build_sends_only_what_the_catalog_lacks(fake: FakeCatalog, maand: Maand, bucket: Path) -> None:
    (bucket / "workspace/jobs/api/Makefile").write_text("start:\n")
    (bucket / "workspace/notes.txt").write_text("not sent")
    (bucket / "workspace/jobs/api/_hooks/.venv").mkdir(parents=True)
    (bucket / "workspace/jobs/api/_hooks/.venv/python").write_text("not sent")
    (bucket / "workspace/jobs/api/link").symlink_to("Makefile")
    fake.answers["FindMissingBlobs"] = lambda request: workspace_pb2.FindMissingBlobsResponse(
        missing_sha256=[digest for digest in request.sha256 if digest.hex().startswith(("8", "9", "a", "b", "c", "d", "e", "f"))]
    )
    fake.answers["CreateSnapshot"] = workspace_pb2.CreateSnapshotResponse(snapshot_id="abc")
    assert maand("build").code == 0
    sent = {file.path: file for file in fake.asked("CreateSnapshot")[0].files}
    assert sorted(sent) == ["jobs/api/Makefile", "jobs/api/link", "jobs/api/manifest.json", "workers.json"]
    assert sent["jobs/api/link"].link_target == "Makefile"
    assert fake.spec().build.snapshot_id == "abc"
    uploaded = {piece.sha256.hex()[0] for pieces in fake.asked("UploadBlobs") for piece in pieces}
    assert uploaded <= set("89abcdef")


def test_a_hook_gets_its_arguments_and_the_variables_named_in_hook_env(
    fake: FakeCatalog, maand: Maand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSED_ON", "yes")
    monkeypatch.setenv("OTHER", "no")
    assert maand("hooks", "hook_migrate", "api", "--", "--dry-run", "x").code == 0
    asked = fake.asked("CreateRun")[0]
    assert (asked.spec.hooks.hook, asked.spec.hooks.job, list(asked.spec.hooks.args)) == (
        "hook_migrate",
        "api",
        ["--dry-run", "x"],
    )
    assert dict(asked.hook_env) == {"PASSED_ON": "yes"}


def test_a_hook_without_a_job_may_have_arguments_too(fake: FakeCatalog, maand: Maand) -> None:
    maand("hooks", "hook_migrate", "--", "x")
    assert (fake.spec().hooks.job, list(fake.spec().hooks.args)) == ("", ["x"])


def test_inside_a_hook_of_the_same_bucket_the_run_joins_the_hooks_run(
    fake: FakeCatalog, maand: Maand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_ID", "parent")
    monkeypatch.setenv("BUCKET_ID", "another bucket")
    maand("deploy")
    monkeypatch.setenv("BUCKET_ID", BUCKET_ID)
    maand("deploy")
    assert [request.parent_run_id for request in fake.asked("CreateRun")] == ["", "parent"]


def test_output_of_a_command_is_data_and_the_rest_is_not(fake: FakeCatalog, maand: Maand) -> None:
    fake.play(output("up 3 days", job=""), finished("command", job=""), end=ended("succeeded", message="done on 1 worker"))
    said = maand("run_command", "uptime", "-w", "10.0.0.1,10.0.0.2", "-c", "2")
    assert said.out == "10.0.0.1 | up 3 days\n"
    assert "run_command succeeded: done on 1 worker" in said.err
    assert (list(fake.spec().run_command.workers), fake.spec().run_command.concurrency) == (["10.0.0.1", "10.0.0.2"], 2)


def test_quiet_prints_data_and_nothing_else(fake: FakeCatalog, maand: Maand) -> None:
    fake.play(output("up 3 days", job=""))
    said = maand("run_command", "uptime", "-q")
    assert (said.out, said.err) == ("10.0.0.1 | up 3 days\n", "")


def test_json_is_one_document_and_nothing_else(fake: FakeCatalog, maand: Maand) -> None:
    fake.play(output("x"), end=ended("failed", failures=[failure("command", job="api", worker="10.0.0.1")]))
    said = maand("deploy", "-o", "json")
    document = json.loads(said.out)
    assert (said.code, said.err) == (1, "")
    assert document["run"]["state"] == "failed"
    assert document["run"]["result"]["failures"][0]["kind"] == "command"
    assert document["exit_code"] == 1
    assert document["output"] == [{"job": "api", "worker": "10.0.0.1", "stream": "", "step": "", "lines": ["x"]}]


def test_jsonl_begins_with_a_header_and_ends_with_the_result(fake: FakeCatalog, maand: Maand) -> None:
    fake.play(output("x"), end=ended("failed"))
    lines = [json.loads(line) for line in maand("deploy", "-o", "jsonl").out.splitlines()]
    assert [line["type"] for line in lines] == ["header", "event", "result"]
    assert lines[0] == {"type": "header", "schema_version": 1, "kind": "deploy", "run_id": RUN_ID}
    assert lines[1]["output"]["lines"] == ["x"]


def test_logs_as_json_lines_have_header_and_result_too(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["ListRuns"] = run_pb2.ListRunsResponse(
        runs=[run_pb2.Run(run_id=RUN_ID, seq=7, kind=run_spec_pb2.RUN_KIND_DEPLOY)]
    )
    fake.play(output("hello"), finished("copy"))
    header, said, result = [json.loads(line) for line in maand("logs", "-o", "jsonl").out.splitlines()]
    assert (header["type"], header["schema_version"], header["run_id"]) == ("header", 1, RUN_ID)
    assert (said["type"], said["output"]["lines"]) == ("event", ["hello"])
    assert result == {"type": "result", "count": 1}


def test_a_dry_run_shows_the_plan_as_data_and_diffs_to_the_curious(fake: FakeCatalog, maand: Maand) -> None:
    fake.play(planned("api", may_change=True, w1="restart", w2="skip"), end=ended("succeeded", changes=True))
    said = maand("deploy", "--dry-run")
    assert said.code == 0
    assert said.out.splitlines()[0] == "JOB  WORKER    ACTION   WHY              CHANGED FILES"
    assert "api  10.0.0.1  restart  files changed    app.conf" in said.out
    assert "api: a hook may still change this" in said.out
    assert "-old" not in said.out
    assert "-old\n+new" in maand("deploy", "--dry-run", "-v").out
    assert maand("deploy", "--dry-run", "--exit-code").code == 8


def test_a_failed_run_is_summed_up_with_the_next_command_last(fake: FakeCatalog, maand: Maand) -> None:
    fake.play(
        planned("api", w1="restart", w2="restart", w3="restart"),
        finished("restart", "failed", worker="10.0.0.1", exit_code=2),
        finished("restart", "failed", worker="10.0.0.2", exit_code=2),
        end=ended(
            "failed",
            failures=[
                failure("command", job="api", worker=f"10.0.0.{n}", step="restart", exit_code=2, message="exit code 2")
                for n in (1, 2)
            ],
            next_command="maand deploy",
        ),
    )
    said = maand("deploy")
    assert said.code == 1
    lines = said.err.splitlines()
    assert "  failed: api restart on 10.0.0.1, 10.0.0.2: exit code 2" in lines
    assert "  not reached: api@10.0.0.3" in lines
    assert lines[-1] == "  next: maand deploy"


def test_problems_of_a_build_have_positions(fake: FakeCatalog, maand: Maand) -> None:
    problem = error_pb2.Problem(
        code="unknown_key", message="unknown key", file="workspace/jobs/api/manifest.json", line=4, column=3, help="did you mean?"
    )
    fake.play(end=ended("failed", failures=[failure("invalid", message="the workspace is invalid")], problems=[problem]))
    said = maand("build")
    assert said.code == 3
    assert "error: unknown key\n  workspace/jobs/api/manifest.json:4:3\n  help: did you mean?\n" in said.err
    assert json.loads(maand("build", "-o", "json").out)["errors"][0]["line"] == 4


def test_a_broken_maand_conf_is_told_with_its_position(fake: FakeCatalog, maand: Maand, bucket: Path) -> None:
    (bucket / "maand.conf").write_text('bucket_id = "x"\nssh_port = = 3\n')
    said = maand("build")
    assert said.code == 3
    assert "  maand.conf:2:12" in said.err
    assert fake.requests == []


def test_a_held_bucket_is_exit_6_and_says_who_holds_it(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["CreateRun"] = Refusal(
        grpc.StatusCode.FAILED_PRECONDITION,
        "deploy 0192 by ann@laptop holds the bucket since 12:00",
        code="bucket_held",
        help="wait with --lock-timeout",
    )
    said = maand("deploy")
    assert said.code == 6
    assert said.err == "error: deploy 0192 by ann@laptop holds the bucket since 12:00\n  help: wait with --lock-timeout\n"


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_while_a_run_is_followed_does_not_change_how_long_it_took(
    hours: int, fake: FakeCatalog, maand: Maand
) -> None:
    run = ended("succeeded")
    run.started_at.FromDatetime(at(0))
    run.finished_at.FromDatetime(at(hours * 3600))
    fake.play(end=run)
    said = maand("deploy")
    [line] = [line for line in said.err.splitlines() if line.startswith("deploy succeeded after")]
    assert re.search(r"after \d+(\.\d)? s", line), line


def hold_once(fake: FakeCatalog, *, kind: str = "deploy", continued: str = "yes") -> None:
    """Let a run of somebody hold the bucket until it was watched to its end."""

    def create(request: run_pb2.CreateRunRequest) -> Message:
        if not fake.asked("WatchRun"):
            facts = {"run_id": RUN_ID, "kind": kind, "continued": continued}
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "held by ann@laptop", code="bucket_held", facts=facts)
        del fake.answers["CreateRun"]
        return fake._CreateRun(request)

    fake.answers["CreateRun"] = create
    fake.play(output("going on"), end=ended("succeeded", kind=kind, requested_by="ann@laptop", message="3 updated"))


def test_an_interrupted_run_of_the_same_kind_is_followed_first_and_the_own_run_comes_then(
    fake: FakeCatalog, maand: Maand
) -> None:
    hold_once(fake)
    said = maand("deploy", "--force")
    assert said.code == 0, said
    assert [request.spec.deploy.force for request in fake.asked("CreateRun")] == [True, True]
    assert said.err.startswith(f"maand: deploy run {RUN_ID} of ann@laptop was interrupted and is being continued")
    assert said.err.count("going on") == 2, "both runs are shown"
    assert said.err.count("deploy succeeded") == 2


def test_programs_get_one_document_of_their_own_run_and_lines_of_both(fake: FakeCatalog, maand: Maand) -> None:
    hold_once(fake)
    assert json.loads(maand("deploy", "-o", "json").out)["exit_code"] == 0
    hold_once(fake)
    fake.requests.clear()
    lines = [json.loads(line)["type"] for line in maand("deploy", "-o", "jsonl").out.splitlines()]
    assert lines == ["header", "event", "result"] * 2


@pytest.mark.parametrize(
    ("command", "kind", "continued"),
    [
        (["deploy"], "build", "yes"),
        (["deploy"], "deploy", "no"),
        (["deploy", "--detach"], "deploy", "yes"),
        (["build"], "deploy", "yes"),
    ],
)
def test_any_other_holder_refuses_the_command(
    command: list[str], kind: str, continued: str, fake: FakeCatalog, maand: Maand
) -> None:
    hold_once(fake, kind=kind, continued=continued)
    assert maand(*command).code == 6
    assert fake.asked("WatchRun") == []


@pytest.mark.parametrize(
    ("command", "kind"),
    [(["build"], "build"), (["job", "restart", "api"], "job_control"), (["gc", "--yes"], "gc")],
)
def test_every_kind_that_holds_the_bucket_attaches(command: list[str], kind: str, fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["CreateSnapshot"] = workspace_pb2.CreateSnapshotResponse(snapshot_id="abc")
    hold_once(fake, kind=kind)
    assert maand(*command).code == 0
    assert len(fake.asked("CreateRun")) == 2


def test_a_followed_run_that_is_stopped_leaves_the_own_one_unbegun(fake: FakeCatalog, maand: Maand) -> None:
    hold_once(fake)
    fake.end = ended("cancelled", kind="deploy", message="cancelled by ann@laptop")
    said = maand("deploy")
    assert said.code == 130
    assert "your own deploy was not begun" in said.err
    assert len(fake.asked("CreateRun")) == 1


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, 7, "other version|another version"),
        (grpc.StatusCode.INTERNAL, 1, "unexpectedly"),
    ],
)
def test_no_raw_grpc_error_is_ever_shown(status: grpc.StatusCode, code: int, words: str, fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["CreateRun"] = RemoteError(status, "grpc internals", spoken=False)
    said = maand("deploy")
    assert said.code == code
    assert any(word in said.err for word in words.split("|"))
    assert "grpc" not in said.err


def test_nobody_at_the_address_is_exit_7(maand: Maand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAAND_CATALOG_ADDRESS", f"unix:{tmp_path}/nobody.sock")
    said = maand("runs", "list")
    assert said.code == 7
    assert said.err.startswith(f"error: the catalog does not answer at unix:{tmp_path}/nobody.sock\n  help: check that it is up")
    assert json.loads(maand("runs", "list", "-o", "json").out)["errors"][0]["code"] == "service_unreachable"


def test_detach_prints_the_id_and_leaves(fake: FakeCatalog, maand: Maand) -> None:
    said = maand("deploy", "--detach")
    assert said.out == f"{RUN_ID}\n"
    assert fake.asked("WatchRun") == []


def test_watch_attaches_to_the_newest_run_and_takes_its_exit_code(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["ListRuns"] = run_pb2.ListRunsResponse(
        runs=[run_pb2.Run(run_id=RUN_ID, seq=7, kind=run_spec_pb2.RUN_KIND_DEPLOY)]
    )
    fake.play(output("hello"), end=ended("failed", failures=[failure("command")], kind="deploy"))
    said = maand("runs", "watch")
    assert said.code == 1
    assert "api@10.0.0.1 | hello" in said.err


def test_cancel_without_a_name_stops_the_only_run_in_progress_and_never_one_of_several(fake: FakeCatalog, maand: Maand) -> None:
    one, other = (run_pb2.Run(run_id=RUN_ID[:-1] + end, kind=run_spec_pb2.RUN_KIND_DEPLOY) for end in "12")
    for runs, code in (([], 1), ([one, other], 2)):
        fake.answers["ListRuns"] = run_pb2.ListRunsResponse(runs=runs)
        assert maand("runs", "cancel").code == code
        assert fake.asked("CancelRun") == []
    fake.answers["ListRuns"] = run_pb2.ListRunsResponse(runs=[one])
    assert maand("runs", "cancel").code == 0
    assert list(fake.asked("ListRuns")[-1].states) == [run_pb2.RUN_STATE_PENDING, run_pb2.RUN_STATE_RUNNING]
    assert [request.run_id for request in fake.asked("CancelRun")] == [one.run_id]


def test_a_skipped_worker_is_exit_4(fake: FakeCatalog, maand: Maand) -> None:
    fake.play(end=ended("succeeded", unreachable_workers=["10.0.0.9"]))
    said = maand("deploy", "--skip-unreachable")
    assert said.code == 4
    assert "not reached: 10.0.0.9" in said.err


@pytest.mark.parametrize("empty", ["", " , ", "@nobody"])
def test_a_list_that_turns_out_empty_never_means_everybody(empty: str, fake: FakeCatalog, maand: Maand, bucket: Path) -> None:
    (bucket / "nobody").write_text("# nobody matched\n")
    for words in (
        ("run_command", "reboot", "-w"),
        ("run_command", "reboot", "-l"),
        ("deploy", "-j"),
        ("job", "stop", "api", "-w"),
    ):
        said = maand(*words, empty)
        assert said.code == 2
        assert "is empty" in said.err
    assert fake.requests == []


def test_job_control_says_what_and_where(fake: FakeCatalog, maand: Maand) -> None:
    maand("job", "run", "api", "--target", "warm", "--allocations", "10.0.0.1", "--batch", "2")
    control = fake.spec().job_control
    assert (control.job, control.target, list(control.workers), control.batch) == ("api", "warm", ["10.0.0.1"], 2)
    assert maand("job", "run", "api").code == 2


def test_settings_are_applied_before_anything_else(fake: FakeCatalog, maand: Maand, bucket: Path) -> None:
    assert maand("build").code == 0
    assert fake.requests[0][0] == "ApplyBucketConfig"
    assert fake.requests[0][1].maand_conf == (bucket / "maand.conf").read_bytes()


def test_who_may_only_read_reads_with_the_settings_in_force(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["ApplyBucketConfig"] = Refusal(
        grpc.StatusCode.PERMISSION_DENIED, "viewers change nothing", code="permission_denied"
    )
    fake.answers["GetBucket"] = bucket_pb2.GetBucketResponse(bucket=bucket_pb2.Bucket(bucket_id=BUCKET_ID, jobs=2))
    said = maand("info", "-o", "json")
    assert (said.code, json.loads(said.out)["jobs"]) == (0, 2)


def test_jsonl_has_one_header_and_ends_with_a_result_whatever_goes_wrong(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["GetRun"] = Refusal(grpc.StatusCode.INTERNAL, "lost", code="internal")
    for args in (("deploy",), ("deploy", "--nope"), ("kv", "get", "a", "b", "--bucket", "/nowhere")):
        lines = [json.loads(line) for line in maand(*args, "-o", "jsonl").out.splitlines()]
        assert [line["type"] for line in lines] == ["header", "result"]
        assert lines[-1]["errors"]
