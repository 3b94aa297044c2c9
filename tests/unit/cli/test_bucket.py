import base64
import json
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from maand_cli.commands.secret import append_key
from maand_cli.errors import InvalidFile, MissingPrerequisite, NoBucket, Usage
from maand_cli.local.bucket import Bucket, find_bucket, parse_conf, read_conf
from maand_cli.local.new_bucket import make_bucket
from maand_cli.local.new_job import make_job
from maand_cli.local.services import point_to_agent
from maand_wire.new_keys import CA_LIFE, make_certificate_authority
from tests.unit.cli.conftest import Maand


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_init_makes_a_complete_bucket_with_private_keys(tmp_path: Path) -> None:
    made = make_bucket(tmp_path)
    assert read_conf(Bucket(path=tmp_path)).bucket_id == made.bucket_id
    for name in ("secrets", "data", "run", "tmp"):
        assert mode(tmp_path / name) == 0o700, name
    for name in ("worker.key", "ca.key", "kv.key", "known_hosts"):
        assert mode(tmp_path / "secrets" / name) == 0o600, name
    assert (tmp_path / "workspace/workers.json").exists()


def test_init_again_keeps_everything(tmp_path: Path) -> None:
    first = make_bucket(tmp_path)
    (tmp_path / "workspace/workers.json").write_text("[]")
    before = snapshot(tmp_path)
    assert make_bucket(tmp_path).bucket_id == first.bucket_id
    assert snapshot(tmp_path) == before


def test_init_adds_an_id_to_a_maand_conf_that_has_none_and_keeps_the_rest(tmp_path: Path) -> None:
    (tmp_path / "maand.conf").write_text('ssh_user = "ann"\n')
    made = make_bucket(tmp_path)
    conf = parse_conf((tmp_path / "maand.conf").read_bytes())
    assert conf.bucket_id == made.bucket_id
    assert b'ssh_user = "ann"' in conf.content


def test_init_does_not_replace_half_a_key_pair(tmp_path: Path) -> None:
    make_bucket(tmp_path)
    (tmp_path / "secrets/ca.key").unlink()
    with pytest.raises(MissingPrerequisite, match=r"ca\.key is missing"):
        make_bucket(tmp_path)


def test_init_makes_no_second_certificate_for_a_ca(tmp_path: Path) -> None:
    make_bucket(tmp_path)
    (tmp_path / "secrets/ca.crt").unlink()
    with pytest.raises(MissingPrerequisite, match=r"ca\.crt is missing but secrets/ca\.key is there"):
        make_bucket(tmp_path)


def test_init_says_when_the_ca_is_over_and_makes_a_new_one_once_both_files_are_away(tmp_path: Path) -> None:
    make_bucket(tmp_path)
    old = make_certificate_authority("old", now=datetime.now(tz=UTC) - CA_LIFE - timedelta(days=1))
    (tmp_path / "secrets/ca.key").write_bytes(old.private)
    (tmp_path / "secrets/ca.crt").write_bytes(old.public)
    with pytest.raises(MissingPrerequisite, match=r"ca\.crt, ended on 20") as caught:
        make_bucket(tmp_path)
    assert "move secrets/ca.crt and secrets/ca.key away" in caught.value.help
    (tmp_path / "secrets/ca.key").unlink()
    (tmp_path / "secrets/ca.crt").unlink()
    assert {"ca.key", "ca.crt"} <= set(make_bucket(tmp_path).made)


def test_init_makes_no_second_key_for_stored_secrets(tmp_path: Path) -> None:
    make_bucket(tmp_path)
    (tmp_path / "data/maand.db").touch()
    (tmp_path / "secrets/kv.key").unlink()

    with pytest.raises(MissingPrerequisite, match=r"kv\.key is missing but data/maand\.db is there") as caught:
        make_bucket(tmp_path)

    assert "from your backup" in caught.value.help
    assert not (tmp_path / "secrets/kv.key").exists()


def test_init_makes_private_again_what_others_could_read(tmp_path: Path) -> None:
    make_bucket(tmp_path)
    (tmp_path / "secrets").chmod(0o755)
    names = ("worker.key", "ca.key", "kv.key", "known_hosts")
    for name in names:
        (tmp_path / "secrets" / name).chmod(0o644)

    make_bucket(tmp_path)

    assert mode(tmp_path / "secrets") == 0o700
    assert [mode(tmp_path / "secrets" / name) for name in names] == [0o600] * 4


def git(directory: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", str(directory), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def added_by_git(repository: Path) -> list[str]:
    """Name what `git add .` would take."""
    return sorted(line.removeprefix("add '").rstrip("'") for line in git(repository, "add", "-A", "-n").splitlines())


IGNORE_FILES: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "other rules": b"*.pyc\nnode_modules/\n",
    "no final line end": b"*.pyc",
    "Windows line ends": b"*.pyc\r\nbuild/\r\n",
    "some of ours": b"/secrets/\n*.pyc\n",
    "ours written otherwise": b"secrets\ndata/\n/run\nlogs/\n/tmp/\n",
    "not UTF-8": b"\xff\xfe\n",
    "keys let through": b"/secrets/\n!/secrets/\n!*.key\n",
    "only a comment": b"# /secrets/ /data/",
}


@pytest.mark.parametrize("where", ["", "deep/bucket"])
@pytest.mark.parametrize("before", IGNORE_FILES.values(), ids=IGNORE_FILES)
def test_git_add_takes_no_key_whatever_gitignore_was_there(before: bytes | None, where: str, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    bucket = tmp_path / where
    bucket.mkdir(parents=True, exist_ok=True)
    if before is not None:
        (bucket / ".gitignore").write_bytes(before)

    make_bucket(bucket)
    for name in ("data/maand.db", "run/services.json", "logs/services.log", "tmp/x"):
        (bucket / name).write_text("x")

    prefix = f"{where}/" if where else ""
    assert added_by_git(tmp_path) == [f"{prefix}{name}" for name in (".gitignore", "maand.conf", "workspace/workers.json")]
    after = (bucket / ".gitignore").read_bytes()
    assert after.startswith(before or b"")
    assert b"\r\n" not in (before or b"") or after.count(b"\r\n") == after.count(b"\n")
    make_bucket(bucket)
    assert (bucket / ".gitignore").read_bytes() == after, "a second init adds nothing"


@pytest.mark.parametrize("kind", ["directory", "link", "dangling link"])
def test_a_gitignore_that_cannot_be_completed_is_told_and_no_key_is_open(kind: str, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    (tmp_path / "rules").write_text("*.pyc\n")
    if kind == "directory":
        (bucket / ".gitignore").mkdir()
    else:
        (bucket / ".gitignore").symlink_to("../rules" if kind == "link" else "../nowhere")

    made = make_bucket(bucket)

    assert len(made.warnings) == 1
    assert ".gitignore cannot be completed: it is " in made.warnings[0]
    assert not [path for path in added_by_git(tmp_path) if "secrets" in path or "data" in path]
    assert (tmp_path / "rules").read_text() == "*.pyc\n"


def test_what_a_person_excepted_inside_secrets_stays_excepted(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/.gitignore").write_text("!ca.crt\n!.gitignore")
    make_bucket(tmp_path)
    assert (tmp_path / "secrets/.gitignore").read_text().endswith("*\n!ca.crt\n!.gitignore")
    assert not [path for path in added_by_git(tmp_path) if path.endswith(".key")]


def test_keys_that_git_tracks_already_are_named(tmp_path: Path) -> None:
    make_bucket(tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-f", "secrets/worker.key", "secrets/ca.crt", "secrets/worker.key.pub", "maand.conf")

    warnings = make_bucket(tmp_path).warnings

    assert len(warnings) == 1
    assert warnings[0].startswith("git already tracks secrets/worker.key: take them out (git rm -r --cached secrets)")
    git(tmp_path, "rm", "-q", "-r", "--cached", "secrets")
    assert make_bucket(tmp_path).warnings == []


def test_init_works_without_git_and_inside_a_git_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    git_free = tmp_path / "bin"
    git_free.mkdir()
    assert make_bucket(tmp_path / "a").warnings == []
    monkeypatch.setenv("PATH", str(git_free))
    assert make_bucket(tmp_path / "b").warnings == []


def test_init_tells_which_keys_others_could_read(maand: Maand, tmp_path: Path) -> None:
    assert "warning" not in maand("init", "--bucket", str(tmp_path / "b")).err
    (tmp_path / "b/secrets/worker.key").chmod(0o644)
    said = maand("init", "--bucket", str(tmp_path / "b"))
    assert "warning: secrets/worker.key could be read by others (mode 0644)" in said.err
    (tmp_path / "b/secrets/ca.key").chmod(0o640)
    assert "ca.key" in json.loads(maand("init", "--bucket", str(tmp_path / "b"), "-o", "json").out)["warnings"][0]
    assert json.loads(maand("init", "--bucket", str(tmp_path / "b"), "-o", "json").out)["warnings"] == []


def test_init_leaves_a_bucket_alone_that_uses_the_agent(maand: Maand, tmp_path: Path) -> None:
    make_bucket(tmp_path)
    (tmp_path / "secrets/worker.key").unlink()
    (tmp_path / "secrets/worker.key.pub").unlink()
    with (tmp_path / "maand.conf").open("a") as conf:
        conf.write('ssh_key = ""\n')

    said = maand("init", "--bucket", str(tmp_path))

    assert not (tmp_path / "secrets/worker.key").exists()
    assert "warning" not in said.err
    assert "ssh-add -L" in said.err
    assert "worker.key" not in said.err


def test_init_makes_the_key_that_maand_conf_names(maand: Maand, tmp_path: Path) -> None:
    (tmp_path / "maand.conf").write_text('ssh_key = "fleet"\n')

    said = maand("init", "--bucket", str(tmp_path))

    assert {path.name for path in (tmp_path / "secrets").glob("*.pub")} == {"fleet.pub"}
    assert not (tmp_path / "secrets/worker.key").exists()
    assert "secrets/fleet.pub into authorized_keys" in said.err


def test_init_of_a_bucket_whose_maand_conf_cannot_be_read_makes_no_key(tmp_path: Path) -> None:
    (tmp_path / "maand.conf").write_text("ssh_key = fleet\n")

    with pytest.raises(InvalidFile):
        make_bucket(tmp_path)

    assert list((tmp_path / "secrets").glob("*.key")) == []


def test_init_tells_of_a_public_key_that_is_another_key_s_and_the_remedy_works(tmp_path: Path) -> None:
    make_bucket(tmp_path)
    secrets = tmp_path / "secrets"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(secrets / "new")], check=True)
    (secrets / "new").rename(secrets / "worker.key")

    (warning,) = make_bucket(tmp_path).warnings

    assert warning.startswith("secrets/worker.key.pub is the public half of another key than secrets/worker.key; write it anew: ")
    subprocess.run(warning.partition("anew: ")[2], shell=True, check=True)
    assert make_bucket(tmp_path).warnings == []


@pytest.mark.parametrize(
    "options", [("-t", "ed25519"), ("-t", "rsa", "-m", "PEM"), ("-t", "ecdsa", "-m", "PKCS8"), ("-t", "ed25519", "-N", "secret")]
)
def test_a_public_key_that_fits_or_cannot_be_judged_is_no_matter(tmp_path: Path, options: tuple[str, ...]) -> None:
    make_bucket(tmp_path)
    for name in ("worker.key", "worker.key.pub"):
        (tmp_path / "secrets" / name).unlink()
    passphrase = () if "-N" in options else ("-N", "")
    subprocess.run(["ssh-keygen", "-q", *options, *passphrase, "-f", str(tmp_path / "secrets/worker.key")], check=True)

    assert make_bucket(tmp_path).warnings == []


@pytest.mark.parametrize("before", ["", "/tmp/ssh-ended/agent.1", "/tmp/ssh-new/agent.2"])
def test_commands_lead_the_services_to_the_agent_of_their_login(tmp_path: Path, before: str) -> None:
    bucket = Bucket(path=tmp_path)
    if before:
        bucket.run.mkdir()
        bucket.agent_link.symlink_to(before)

    point_to_agent(bucket, {"SSH_AUTH_SOCK": "/tmp/ssh-new/agent.2"})

    assert str(bucket.agent_link.readlink()) == "/tmp/ssh-new/agent.2"
    assert [path.name for path in bucket.run.iterdir()] == ["agent.sock"]


def test_commands_without_an_agent_or_with_the_services_own_leave_the_link_as_it_is(tmp_path: Path) -> None:
    bucket = Bucket(path=tmp_path)
    point_to_agent(bucket, {})
    assert not bucket.run.exists()
    point_to_agent(bucket, {"SSH_AUTH_SOCK": "/tmp/ssh-new/agent.2"})

    for environment in ({}, {"SSH_AUTH_SOCK": ""}, {"SSH_AUTH_SOCK": str(bucket.agent_link)}):
        point_to_agent(bucket, environment)

    assert str(bucket.agent_link.readlink()) == "/tmp/ssh-new/agent.2"


def test_the_keys_are_what_the_services_expect(tmp_path: Path) -> None:
    make_bucket(tmp_path)
    secrets = tmp_path / "secrets"
    key_id, _, key = (secrets / "kv.key").read_text().strip().partition(":")
    assert key_id
    assert len(base64.urlsafe_b64decode(key)) == 32
    private = serialization.load_ssh_private_key((secrets / "worker.key").read_bytes(), None)
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert (secrets / "worker.key.pub").read_bytes().startswith(public)
    ca = x509.load_pem_x509_certificate((secrets / "ca.crt").read_bytes())
    ca.verify_directly_issued_by(ca)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_rotation_appends_a_key_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "kv.key"
    path.write_text("k1:AAAA")
    append_key(path, b"k2:BBBB\n")
    append_key(path, b"k3:CCCC\n")
    assert path.read_text() == "k1:AAAA\nk2:BBBB\nk3:CCCC\n"
    with pytest.raises(MissingPrerequisite, match="missing"):
        append_key(tmp_path / "none", b"")


def test_a_bucket_is_found_by_flag_then_environment_then_upwards(tmp_path: Path) -> None:
    for name in ("flag", "environment", "above"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "maand.conf").touch()
    below = tmp_path / "above/workspace/jobs"
    below.mkdir(parents=True)
    environment = {"MAAND_BUCKET": str(tmp_path / "environment")}
    assert find_bucket(tmp_path / "flag", environment=environment, start=below).path.name == "flag"
    assert find_bucket(None, environment=environment, start=below).path.name == "environment"
    assert find_bucket(None, environment={}, start=below).path.name == "above"
    with pytest.raises(NoBucket, match="no bucket here"):
        find_bucket(None, environment={}, start=tmp_path)
    with pytest.raises(NoBucket, match="is no bucket"):
        find_bucket(tmp_path, environment={}, start=below)


@pytest.mark.parametrize(
    ("content", "line", "column", "message"),
    [
        (b"a = 1\nb = = 2\n", 2, 5, "not TOML: invalid value"),
        (b'bucket_id = "x', 1, 0, "not TOML: unterminated string at the end"),
        (b"a = '\xff'", 1, 0, "the file is not UTF-8 text"),
    ],
)
def test_a_syntax_error_has_a_position(content: bytes, line: int, column: int, message: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_conf(content)
    problem = caught.value.problems()[0]
    assert (problem.file, problem.line, problem.message) == ("maand.conf", line, message)
    assert problem.column == column or column == 0


def test_a_maand_conf_without_id_is_mended_by_init() -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_conf(b'ssh_user = "x"\n')
    assert "maand init" in caught.value.problems()[0].help


def test_a_new_job_has_a_manifest_and_a_makefile(tmp_path: Path) -> None:
    made = make_job(tmp_path, "hello", ["Worker"])
    assert (made / "manifest.json").read_text() == '{\n  "version": "0.1.0",\n  "selectors": [\n    "worker"\n  ]\n}\n'
    assert "start:" in (made / "Makefile").read_text()
    with pytest.raises(MissingPrerequisite, match="exists"):
        make_job(tmp_path, "hello", [])
    with pytest.raises(Usage, match="no job name"):
        make_job(tmp_path, "Hello!", [])


def test_init_and_job_create_as_commands(maand: Maand, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("fresh")
    said = maand("init", "--bucket", str(directory / "new"))
    assert said.code == 0
    assert said.out == f"{directory / 'new'}\n"
    assert "maand worker trust" in said.err
    created = maand("job", "create", "hello", "--selectors", "a,b", "--bucket", str(directory / "new"))
    assert created.out == f"{directory / 'new/workspace/jobs/hello'}\n"
