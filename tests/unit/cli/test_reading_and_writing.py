"""Commands that read and write the catalog, against canned answers."""

import io
import json
from pathlib import Path

import grpc
import pytest

from maand_contracts.catalog.v1 import (
    allocation_pb2,
    bucket_pb2,
    job_pb2,
    kv_pb2,
    run_pb2,
    run_spec_pb2,
    secret_pb2,
    semaphore_pb2,
    worker_pb2,
)
from tests.unit.cli.builders import output
from tests.unit.cli.conftest import Maand
from tests.unit.cli.fake_catalog import RUN_ID, FakeCatalog, Refusal

API = job_pb2.Job(
    name="api",
    version="2.0.0",
    selectors=["api"],
    demanded_jobs=["database"],
    deployment_seq=1,
    restart_policy=job_pb2.RESTART_POLICY_RELOAD,
    hooks=[
        job_pb2.Hook(
            name="hook_migrate",
            job="api",
            executed_on=[job_pb2.HOOK_EVENT_PRE_DEPLOY, job_pb2.HOOK_EVENT_CLI],
            runtime=job_pb2.HOOK_RUNTIME_PYTHON,
        )
    ],
)


def allocation(worker: str, state: str, current: str) -> allocation_pb2.Allocation:
    value = allocation_pb2.AllocationState.Value(f"ALLOCATION_STATE_{state.upper()}")
    return allocation_pb2.Allocation(job="api", worker=worker, state=value, current_version=current, new_version="2.0.0")


@pytest.fixture(autouse=True)
def canned(fake: FakeCatalog) -> None:
    fake.answers["ListJobs"] = job_pb2.ListJobsResponse(jobs=[API])
    fake.answers["ListWorkers"] = worker_pb2.ListWorkersResponse(workers=[worker_pb2.Worker(name="10.0.0.1", labels=["api"])])
    fake.answers["ListAllocations"] = allocation_pb2.ListAllocationsResponse(
        allocations=[allocation("10.0.0.1", "promoted", "2.0.0"), allocation("10.0.0.2", "failed", "1.0.0")]
    )
    fake.answers["ListPorts"] = job_pb2.ListPortsResponse(ports=[job_pb2.Port(name="api_port", number=30000, job="api")])


def test_cat_jobs_is_a_table_for_people_and_everything_for_programs(maand: Maand) -> None:
    assert maand("cat", "jobs").out.splitlines() == [
        "NAME  VERSION  DEPLOYMENT SEQ  SELECTORS  DEMANDED JOBS  HOOKS",
        "api   2.0.0    1               api        database       hook_migrate",
    ]
    [job] = json.loads(maand("cat", "jobs", "-o", "json").out)
    assert (job["restart_policy"], job["hooks"][0]["executed_on"]) == ("reload", ["pre_deploy", "cli"])


def test_cat_deployments_sums_up_by_job(maand: Maand) -> None:
    [row] = json.loads(maand("cat", "deployments", "-o", "json").out)
    assert (row["running"], row["states"]) == (["1.0.0", "2.0.0"], {"promoted": 1, "failed": 1})
    assert "1 promoted, 1 failed" in maand("cat", "deployments").out


@pytest.mark.parametrize("noun", ["workers", "jobs", "allocations", "deployments", "hooks", "ports", "certs", "kv"])
@pytest.mark.parametrize("form", ["human", "json", "jsonl"])
def test_every_noun_is_printed_in_every_form(noun: str, form: str, maand: Maand) -> None:
    said = maand("cat", noun, "-o", form)
    assert said.code == 0
    if form == "json":
        assert isinstance(json.loads(said.out), list)
    if form == "jsonl":
        lines = [json.loads(line) for line in said.out.splitlines()]
        assert (lines[0]["schema_version"], lines[-1]["type"]) == (1, "result")


def test_certificates_are_told_with_what_is_left_of_them_and_of_their_ca(fake: FakeCatalog, maand: Maand) -> None:
    soon, over = allocation_pb2.CERTIFICATE_STATE_ENDS_SOON, allocation_pb2.CERTIFICATE_STATE_ENDED
    leaves = [
        allocation_pb2.Certificate(job="api", name="web", worker=worker, state=state, days_left=days, help="build")
        for worker, state, days in (("10.0.0.1", soon, 3), ("10.0.0.2", over, -4), ("10.0.0.3", over, -4))
    ]
    authority = allocation_pb2.CertificateAuthority(
        common_name="maand b", state=soon, days_left=20, in_use=True, message="the bucket's CA ends soon", help="make a new CA"
    )
    fake.answers["ListCertificates"] = allocation_pb2.ListCertificatesResponse(certificates=leaves, authority=authority)
    rows = json.loads(maand("cat", "certs", "-o", "json").out)
    assert [(row["job"], row["name"], row["state"], row["days_left"]) for row in rows[1:]] == [
        ("api", "web", "ended", -4),
        ("api", "web", "ended", -4),
        ("", "ca", "ends_soon", 20),
    ]
    said = maand("cat", "certs")
    assert "ends_soon" in said.out
    assert said.err == "help: build\nhelp: make a new CA\n"

    assert "2 ended, 1 end soon, the bucket's CA ends soon; build; make a new CA" in maand("info").out
    told = json.loads(maand("info", "-o", "json").out)["certificates"]
    assert (len(told["ending"]), told["authority"]["state"]) == (3, "ends_soon")
    asked = [request.ending_only for name, request in fake.requests if name == "ListCertificates"]
    assert asked == [False, False, True, True]

    authority.in_use = False
    fake.answers["ListCertificates"] = allocation_pb2.ListCertificatesResponse(authority=authority)
    assert "CA ends" not in maand("info").out, "it signed nothing"


def test_an_empty_list_is_an_empty_array_and_a_word_to_people(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["ListJobs"] = job_pb2.ListJobsResponse()
    assert maand("cat", "jobs", "-o", "json").out == "[]\n"
    said = maand("cat", "jobs")
    assert (said.out, said.err) == ("", "no jobs\n")


def test_every_page_is_read(fake: FakeCatalog, maand: Maand) -> None:
    def page(request: worker_pb2.ListWorkersRequest) -> worker_pb2.ListWorkersResponse:
        if request.page_token:
            return worker_pb2.ListWorkersResponse(workers=[worker_pb2.Worker(name="b")])
        return worker_pb2.ListWorkersResponse(workers=[worker_pb2.Worker(name="a")], next_page_token="2")

    fake.answers["ListWorkers"] = page
    assert [row["name"] for row in json.loads(maand("worker", "list", "-o", "json").out)] == ["a", "b"]


def test_kv_get_prints_the_value_alone(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["Get"] = kv_pb2.GetResponse(entry=kv_pb2.Entry(namespace="vars/job/api", key="k", value="v", version=3))
    assert maand("kv", "get", "vars/job/api", "k").out == "v\n"
    assert json.loads(maand("kv", "get", "vars/job/api", "k", "-o", "json").out)["version"] == 3
    fake.answers["Get"] = Refusal(grpc.StatusCode.NOT_FOUND, "there is no vars/job/api k", code="not_found")
    missing = maand("kv", "get", "vars/job/api", "k")
    assert (missing.code, missing.out, missing.err) == (1, "", "error: there is no vars/job/api k\n")


def test_kv_set_takes_an_argument_a_file_or_standard_input(
    fake: FakeCatalog, maand: Maand, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bucket / "value").write_text("from file")
    monkeypatch.setattr("sys.stdin", io.StringIO("from stdin"))
    maand("kv", "set", "vars/job/api", "k", "typed", "--if-version", "2", "--ttl", "1h")
    maand("kv", "set", "vars/job/api", "k", "-f", "value", "--if-absent")
    maand("kv", "set", "vars/job/api", "k", "-")
    puts = fake.asked("Put")
    assert [put.value for put in puts] == ["typed", "from file", "from stdin"]
    assert (puts[0].precondition.if_version, puts[0].ttl_seconds, puts[1].precondition.if_absent) == (2, 3600, True)
    assert len({put.request_id for put in puts}) == 3
    assert maand("kv", "set", "vars/job/api", "k").code == 2


def test_kv_history_delete_and_restore(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["ListVersions"] = kv_pb2.ListVersionsResponse(entries=[kv_pb2.Entry(version=2), kv_pb2.Entry(version=1)])
    fake.answers["Restore"] = kv_pb2.RestoreResponse(version=3)
    assert [row["version"] for row in json.loads(maand("kv", "history", "vars/bucket", "k", "-o", "json").out)] == [2, 1]
    assert "version 1 is back as version 3" in maand("kv", "restore", "vars/bucket", "k", "1").err
    assert maand("kv", "delete", "vars/bucket", "k").code == 0


def test_a_secret_comes_from_standard_input_and_is_never_shown(
    fake: FakeCatalog, maand: Maand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("s3cret value\n"))
    said = maand("secret", "set", "api", "token", "-v")
    [put] = fake.asked("PutSecret")
    assert (put.namespace, put.key, put.value) == ("secrets/job/api", "token", "s3cret value")
    assert "s3cret" not in said.out + said.err


def test_a_secret_among_the_arguments_is_refused_with_the_way_and_not_said_again(fake: FakeCatalog, maand: Maand) -> None:
    for form in ("human", "json"):
        said = maand("secret", "set", "api", "token", "s3cret", "-o", form)
        assert said.code == 2
        assert "the value is read from standard input, not from the arguments" in said.out + said.err
        assert "| maand secret set api token" in said.out + said.err
        assert "s3cret" not in said.out + said.err
    assert fake.asked("PutSecret") == []


@pytest.mark.parametrize("given", ["", "\n", "\r\n"])
@pytest.mark.parametrize("source", ["standard input", "file"])
@pytest.mark.parametrize(("noun", "place"), [("secret", "api"), ("kv", "vars/job/api")])
def test_empty_input_replaces_no_value(
    noun: str, place: str, source: str, given: str, fake: FakeCatalog, maand: Maand, monkeypatch: pytest.MonkeyPatch, bucket: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    (bucket / "value").write_text(given)
    how = {"file": ["-f", str(bucket / "value")], "standard input": ["-"] if noun == "kv" else []}[source]
    said = maand(noun, "set", place, "token", *how)
    assert said.code == 3
    assert "is empty: nothing was stored" in said.err
    assert fake.asked("PutSecret") == fake.asked("Put") == []


def test_an_empty_value_is_stored_when_it_is_meant(fake: FakeCatalog, maand: Maand) -> None:
    assert maand("secret", "set", "api", "token", "--empty").code == 0
    assert maand("kv", "set", "vars/job/api", "k", "").code == 0
    assert [put.value for put in (*fake.asked("PutSecret"), *fake.asked("Put"))] == ["", ""]
    contradiction = maand("secret", "set", "api", "token", "--empty", "-f", "maand.conf")
    assert contradiction.code == 2


def test_reveal_prints_the_value_alone(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["RevealSecret"] = secret_pb2.RevealSecretResponse(value="s3cret", version=1)
    assert maand("secret", "reveal", "secrets/job/api", "token").out == "s3cret\n"
    assert fake.asked("RevealSecret")[0].namespace == "secrets/job/api"


def test_rotation_goes_on_until_no_page_is_left(fake: FakeCatalog, maand: Maand) -> None:
    pages = iter([("2", 5), ("", 0)])

    def rotate(_request: secret_pb2.RotateSecretsRequest) -> secret_pb2.RotateSecretsResponse:
        token, remaining = next(pages)
        return secret_pb2.RotateSecretsResponse(rotated=5, remaining=remaining, next_page_token=token)

    fake.answers["RotateSecrets"] = rotate
    said = maand("secret", "rotate")
    first, second, verdict = said.err.splitlines()
    assert (first, second) == ("5 values re-encrypted, 5 to go", "10 values re-encrypted, 0 to go")
    assert "all lines of kv.key but the last may go" in verdict


def test_a_rotation_that_leaves_something_says_that_the_old_key_must_stay(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["RotateSecrets"] = secret_pb2.RotateSecretsResponse(rotated=5, remaining=1)
    assert "keep it, and run `maand secret rotate --continue`" in maand("secret", "rotate").err
    assert json.loads(maand("secret", "rotate", "--continue", "-o", "json").out) == {
        "rotated": 5,
        "remaining": 1,
        "unreadable": [],
    }


def test_a_rotation_names_what_it_could_not_open_and_the_missing_keys(fake: FakeCatalog, maand: Maand) -> None:
    lost = [
        secret_pb2.UnreadableValue(namespace="secrets/job/api", key=f"token{number}", version=1, key_id=f"k{number % 2}")
        for number in range(25)
    ]
    pages = {
        "": secret_pb2.RotateSecretsResponse(rotated=5, remaining=26, next_page_token="7", unreadable=lost[:20]),
        "7": secret_pb2.RotateSecretsResponse(rotated=1, remaining=25, unreadable=lost[20:]),
    }
    fake.answers["RotateSecrets"] = lambda request: pages[request.page_token]

    said = maand("secret", "rotate").err
    shown = json.loads(maand("secret", "rotate", "--continue", "-o", "json").out)

    assert "25 values cannot be opened and stay as they are" in said
    assert "k0, k1" in said
    assert "secrets/job/api token0 version 1, key k0" in said
    assert "and 5 more" in said
    assert "put these keys back into kv.key" in said
    assert "may go" not in said
    assert (shown["rotated"], len(shown["unreadable"])) == (6, 25)
    assert shown["unreadable"][1] == {"namespace": "secrets/job/api", "key": "token1", "version": 1, "key_id": "k1"}


def test_semaphores_show_holders_and_waiters(fake: FakeCatalog, maand: Maand) -> None:
    semaphore = semaphore_pb2.Semaphore(
        job="api",
        event=job_pb2.HOOK_EVENT_CLI,
        name="ddl",
        capacity=1,
        holders=[semaphore_pb2.Claim(worker="10.0.0.1", fencing_token=4)],
        waiters=[semaphore_pb2.Claim(worker="10.0.0.2", fencing_token=5)],
    )
    fake.answers["ListSemaphores"] = semaphore_pb2.ListSemaphoresResponse(semaphores=[semaphore])
    lines = maand("semaphore", "list").out.splitlines()
    assert lines[1].split()[:6] == ["api", "cli", "ddl", "1", "holds", "10.0.0.1"]
    assert lines[2].split()[4:6] == ["waits", "10.0.0.2"]
    fake.answers["ForceRelease"] = semaphore_pb2.ForceReleaseResponse(released=[semaphore_pb2.Claim(worker="10.0.0.1")])
    assert "10.0.0.1" in maand("semaphore", "release", "api", "cli", "ddl").out


def test_runs_are_listed_shown_cancelled_and_resumed(fake: FakeCatalog, maand: Maand) -> None:
    run = run_pb2.Run(run_id=RUN_ID, seq=7, kind=run_spec_pb2.RUN_KIND_DEPLOY, state=run_pb2.RUN_STATE_RUNNING)
    fake.answers["ListRuns"] = run_pb2.ListRunsResponse(runs=[run])
    [row] = json.loads(maand("runs", "list", "--state", "running", "--kind", "deploy", "-o", "json").out)
    assert (row["seq"], row["state"]) == (7, "running")
    assert maand("runs", "list", "--state", "runing").code == 2
    assert json.loads(maand("runs", "show", "#7", "-o", "json").out)["run_id"] == RUN_ID
    assert "deploy succeeded" in maand("runs", "show").out
    assert "after its current batch" in maand("runs", "cancel", "7").err
    assert "stops now" in maand("runs", "cancel", RUN_ID, "--now").err
    fake.cancels = 0
    fake.answers["ResumeRun"] = run_pb2.ResumeRunResponse(run=run)
    assert maand("runs", "resume", RUN_ID).code == 0


def test_the_services_log_is_a_document_when_asked_for(maand: Maand, bucket: Path) -> None:
    (bucket / "logs").mkdir()
    (bucket / "logs/services.log").write_text("one\ntwo\n")
    assert maand("services", "logs").out == "one\ntwo\n"
    assert json.loads(maand("services", "logs", "-n", "1", "-o", "json").out) == [{"line": "two"}]
    assert maand("services", "logs", "-f", "-o", "json").code == 2


def test_logs_print_what_hooks_said_of_some_jobs_or_workers(fake: FakeCatalog, maand: Maand) -> None:
    fake.play(output("one"), output("two", worker="10.0.0.2"), output("three", job="web"))
    fake.answers["ListRuns"] = run_pb2.ListRunsResponse(runs=[run_pb2.Run(run_id=RUN_ID)])
    assert maand("logs").out == "api@10.0.0.1 | one\napi@10.0.0.2 | two\nweb@10.0.0.1 | three\n"
    assert maand("logs", "--jobs", "api", "--workers", "10.0.0.2").out == "api@10.0.0.2 | two\n"


def test_schema_prints_json(fake: FakeCatalog, maand: Maand) -> None:
    fake.answers["GetSchema"] = bucket_pb2.GetSchemaResponse(json_schema='{"type": "object"}')
    assert json.loads(maand("schema", "manifest").out) == {"type": "object"}
    assert maand("schema", "manifests").code == 2


def test_hooks_test_runs_without_any_service(maand: Maand, bucket: Path, fake: FakeCatalog) -> None:
    hooks = bucket / "workspace/jobs/api/_hooks"
    hooks.mkdir()
    (hooks / "hook_mark.py").write_text(
        "import sys\nfrom maand import put_job_variable\n"
        "put_job_variable('mark', sys.argv[1]).raise_for_status()\nprint('done')\n"
    )
    said = maand("hooks", "test", "api", "hook_mark", "--event", "pre_deploy", "--", "yes")
    assert said.code == 0
    assert "done\ncalls:\n  200 PUT /kv" in said.out
    assert "vars/job/api  mark = yes" in said.out
    assert fake.requests == []
    assert maand("hooks", "test", "apy", "hook_mark").code == 2
