import base64
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from maand_cli.bucket import Bucket, find_bucket, parse_conf, read_conf
from maand_cli.bucket_making import make_bucket
from maand_cli.commands.secret import append_key
from maand_cli.errors import InvalidFile, MissingPrerequisite, NoBucket, Usage
from maand_cli.job_making import make_job
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
