"""What a cluster begins with: made once, kept, renewed in time, each part's apart from the others'."""

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from maand_catalog.commands.cluster_init import Cluster, make_files, make_tokens
from maand_catalog.database.database import Database
from maand_catalog.rules.identity import Role, token_digest
from maand_catalog.store.tokens import TokenRevoked, find_role_caller, list_tokens, revoke_token

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    cluster = Cluster(directory=tmp_path / "cluster", now=NOW, names=("maand.example", "10.1.2.3"))
    make_files(cluster)
    return cluster


def content(cluster: Cluster) -> dict[str, bytes]:
    return {
        str(file.relative_to(cluster.directory)): file.read_bytes() for file in cluster.directory.rglob("*") if file.is_file()
    }


def leaf(cluster: Cluster, part: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((cluster.directory / part / "tls.crt").read_bytes())


def test_a_second_time_nothing_changes(cluster: Cluster) -> None:
    before = content(cluster)
    make_files(cluster)
    assert content(cluster) == before


def test_no_secret_is_readable_by_others(cluster: Cluster) -> None:
    for file in cluster.directory.rglob("*"):
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode == (0o700 if file.is_dir() else 0o644 if file.parent.name == "worker" else 0o600), file


def test_nobody_gets_the_key_of_the_authority_that_signs_services(cluster: Cluster) -> None:
    key = (cluster.directory / "authority/ca.key").read_bytes()
    assert [path for path, found in content(cluster).items() if found == key] == ["authority/ca.key"]
    assert "gateway/token" not in content(cluster)


def test_the_catalogs_certificate_carries_the_names_people_use(cluster: Cluster) -> None:
    names = leaf(cluster, "catalog").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"catalog", "catalog1", "catalog2", "localhost", "maand.example"}
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3", "127.0.0.1"]


def test_a_certificate_is_renewed_a_month_before_its_end_and_not_earlier(cluster: Cluster) -> None:
    first = leaf(cluster, "executor").serial_number
    make_files(replace(cluster, now=NOW + timedelta(days=330)))
    assert leaf(cluster, "executor").serial_number == first
    make_files(replace(cluster, now=NOW + timedelta(days=340)))
    assert leaf(cluster, "executor").serial_number != first


async def test_tokens_work_are_kept_and_a_revoked_one_stays_revoked(cluster: Cluster, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/maand.db"
    for _ in range(2):
        await make_tokens(cluster, url)
    viewer = token_digest((cluster.directory / "operator/viewer.token").read_text().strip())
    database = await Database.open(url)
    known = await database.read(list_tokens)
    assert sorted(token.role for token in known) == [Role.EXECUTOR, Role.OPERATOR, Role.VIEWER]
    assert (await database.read(lambda tx: find_role_caller(tx, viewer))).roles == {Role.VIEWER}
    (of_viewer,) = (token.token_id for token in known if token.role is Role.VIEWER)
    await database.write(lambda tx: revoke_token(tx, of_viewer, actor="test"))
    await database.close()
    await make_tokens(cluster, url)
    database = await Database.open(url)
    with pytest.raises(TokenRevoked):
        await database.read(lambda tx: find_role_caller(tx, viewer))
    await database.close()
