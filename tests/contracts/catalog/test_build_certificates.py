"""Certificates: what is in them, and that only what needs it is issued anew."""

import asyncio
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from maand_catalog.rules.build.certificates import NEW_AUTHORITY_HELP, RENEW_HELP
from maand_contracts.catalog.v1 import allocation_pb2 as pb
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.bucket_verbs import FLEET, TLS, BucketClient, a_new_bucket, write_authority
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.kv_builders import a_keyring
from tests.contracts.catalog.serving import ServedCatalog, serve

FILES = {"jobs/api/manifest.json": TLS}
SHARED = {"jobs/api/manifest.json": '{"certs": {"tls": {"one": true}}}'}
THREE = FLEET.replace("]}]", ']}, {"host": "web.internal", "labels": ["api"]}]')


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> BucketClient:
    return await a_new_bucket(catalog)


async def fetch(bucket: BucketClient) -> pb.GetAllocationCertificatesResponse:
    with remote_errors():
        return await bucket.placements.GetAllocationCertificates(
            pb.GetAllocationCertificatesRequest(
                bucket_id=bucket.bucket_id, allocation_ids=[each.allocation_id for each in await bucket.allocations()]
            )
        )


async def list_certificates(bucket: BucketClient, **asked: Any) -> pb.ListCertificatesResponse:
    with remote_errors():
        return await bucket.placements.ListCertificates(pb.ListCertificatesRequest(bucket_id=bucket.bucket_id, **asked))


async def test_a_leaf_names_its_worker_and_serves_and_calls(bucket: BucketClient) -> None:
    subject = '{"certs": {"tls": {"pkcs8": true, "subject": {"common_name": "api.internal", "organization": "maand"}}}}'
    await bucket.build({"workers.json": THREE, "jobs/api/manifest.json": subject})

    fetched = await fetch(bucket)

    hosts = {each.allocation_id: each.worker for each in await bucket.allocations()}
    by_host = {hosts[leaf.allocation_id]: leaf for leaf in fetched.certificates}
    leaf = x509.load_pem_x509_certificate(by_host["10.0.0.2"].certificate_pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.2"), ip_address("127.0.0.1")]
    named = x509.load_pem_x509_certificate(by_host["web.internal"].certificate_pem.encode())
    assert named.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == [
        "web.internal"
    ]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "api.internal"
    assert timedelta(days=59) < leaf.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=60)
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(fetched.ca_certificate_pem.encode()))
    key = serialization.load_pem_private_key(by_host["10.0.0.2"].private_key_pem.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == leaf.public_key()


@pytest.mark.parametrize(("pkcs8", "first_line"), [("true", "BEGIN PRIVATE KEY"), ("false", "BEGIN EC PRIVATE KEY")])
async def test_a_key_has_the_form_asked_for(bucket: BucketClient, pkcs8: str, first_line: str) -> None:
    await bucket.build({"jobs/api/manifest.json": f'{{"certs": {{"tls": {{"pkcs8": {pkcs8}}}}}}}'})

    assert all(first_line in leaf.private_key_pem for leaf in (await fetch(bucket)).certificates)


async def test_openssl_accepts_chain_and_key(bucket: BucketClient, tmp_path: Path) -> None:
    await bucket.build(FILES)
    fetched = await fetch(bucket)
    (tmp_path / "root.crt").write_text(fetched.ca_certificate_pem)
    (tmp_path / "leaf.crt").write_text(fetched.certificates[0].certificate_pem)

    command = ["openssl", "verify", "-purpose", "sslserver", "-verify_ip", "127.0.0.1", "-CAfile", "root.crt", "leaf.crt"]
    checked = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )

    assert checked.returncode == 0, checked.stderr


async def test_a_shared_certificate_is_one_for_all_hosts(bucket: BucketClient) -> None:
    response = await bucket.build(SHARED)

    assert response.issued_certificates == 1
    assert len(set((await bucket.certificates()).values())) == 1
    fetched = await fetch(bucket)
    assert len({leaf.private_key_pem for leaf in fetched.certificates}) == 1
    leaf = x509.load_pem_x509_certificate(fetched.certificates[0].certificate_pem.encode())
    addresses = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.IPAddress)
    assert list(map(str, addresses)) == ["10.0.0.1", "10.0.0.2", "127.0.0.1"]


async def test_a_changed_workspace_reissues_nothing_that_is_still_good(bucket: BucketClient) -> None:
    await bucket.build(FILES)
    before, keys = await bucket.certificates(), [leaf.private_key_pem for leaf in (await fetch(bucket)).certificates]

    response = await bucket.build({**FILES, "jobs/api/Makefile": "changed:\n"})

    assert (response.changed, response.issued_certificates) == (True, 0)
    assert await bucket.certificates() == before
    assert [leaf.private_key_pem for leaf in (await fetch(bucket)).certificates] == keys


async def test_a_leaf_whose_private_key_nobody_can_open_is_issued_anew_by_the_next_build_of_the_same_workspace(
    bucket: BucketClient, catalog: ServedCatalog, tmp_path: Path
) -> None:
    await bucket.build(FILES)
    before = await bucket.certificates()
    assert not (await bucket.build(FILES)).changed
    (tmp_path / "kv.key").unlink()
    a_keyring(tmp_path, "k2")
    async with serve(catalog.database, tmp_path) as restarted:
        again = replace(bucket, catalog=restarted)
        with pytest.raises(RemoteError, match=r"certs/tls\.key version 1 cannot be opened") as lost:
            await fetch(again)
        assert lost.value.help.endswith("or run `maand build`")

        response = await again.build(FILES)

        assert (response.changed, response.issued_certificates) == (True, 2)
        assert not before.items() & (await again.certificates()).items()
        for leaf in (await fetch(again)).certificates:
            serialization.load_pem_private_key(leaf.private_key_pem.encode(), password=None)
        assert not (await again.build(FILES)).changed


async def test_a_new_worker_gets_one_and_the_others_keep_theirs(bucket: BucketClient) -> None:
    await bucket.build(FILES)
    before = await bucket.certificates()

    response = await bucket.build({**FILES, "workers.json": THREE})

    assert response.issued_certificates == 1
    assert before.items() < (await bucket.certificates()).items()


async def test_a_shared_one_is_reissued_for_all_when_a_worker_joins(bucket: BucketClient) -> None:
    await bucket.build(SHARED)
    before = await bucket.certificates()

    assert (await bucket.build({**SHARED, "workers.json": THREE})).issued_certificates == 1
    assert not before.items() & (await bucket.certificates()).items()


async def test_another_description_reissues_only_that_certificate(bucket: BucketClient) -> None:
    two = '{"certs": {"tls": {}, "peer": {"subject": {"common_name": "%s"}}}}'
    await bucket.build({"jobs/api/manifest.json": two % "one"})
    before = await bucket.certificates()

    assert (await bucket.build({"jobs/api/manifest.json": two % "two"})).issued_certificates == 2
    changed = {place[1] for place, serial in (await bucket.certificates()).items() if before[place] != serial}
    assert changed == {"peer"}


async def test_another_ca_reissues_all(bucket: BucketClient) -> None:
    await bucket.build(FILES)
    write_authority(bucket.catalog.running.settings.ca_dir)

    assert (await bucket.build(FILES)).issued_certificates == 2


async def test_inside_the_buffer_an_unchanged_workspace_is_renewed(bucket: BucketClient, clock: ShiftedClock) -> None:
    await bucket.build(FILES)
    clock.advance(timedelta(days=49))
    assert not (await bucket.build(FILES)).changed

    clock.advance(timedelta(days=2))

    response = await bucket.build(FILES)
    assert (response.changed, response.issued_certificates) == (True, 2)
    assert not (await bucket.build(FILES)).changed


async def test_a_certificate_no_longer_wanted_goes_with_its_key(bucket: BucketClient) -> None:
    await bucket.build(FILES)

    await bucket.build()

    assert await bucket.certificates() == {}
    assert not [key for entries in (await bucket.entries("maand/job")).values() for key in entries if key.startswith("certs/")]


async def test_a_removed_allocation_keeps_its_certificate_until_gc(bucket: BucketClient) -> None:
    await bucket.build(FILES)
    await bucket.promote("10.0.0.2")

    await bucket.build({**FILES, "workers.json": '[{"host": "10.0.0.1", "labels": ["api"]}]'})

    assert len((await fetch(bucket)).certificates) == 2


async def test_leaves_end_with_their_ca_and_every_build_warns_of_it_with_the_way_out(
    bucket: BucketClient, clock: ShiftedClock
) -> None:
    """A CA of 20 days: leaves are as short, nothing can renew them, and when it is over so is building under it."""
    directory = bucket.catalog.running.settings.ca_dir
    write_authority(directory, days=20)
    changed = {**FILES, "jobs/api/Makefile": "changed:\n"}
    for files, issued in ((FILES, 2), (FILES, 0), (changed, 0)):
        built = await bucket.build(files)
        assert built.issued_certificates == issued
        (warning,) = built.warnings
        assert "the bucket's CA ends on" in warning
        assert "before their 60 days of certs_ttl are over" in warning
        assert NEW_AUTHORITY_HELP in warning

    clock.advance(timedelta(days=15))
    assert len((await bucket.build(changed)).warnings) == 1, "inside the buffer, where they cannot be renewed"
    listed = await list_certificates(bucket, ending_only=True)
    assert {(leaf.state, leaf.help) for leaf in listed.certificates} == {(pb.CERTIFICATE_STATE_ENDS_SOON, NEW_AUTHORITY_HELP)}

    clock.advance(timedelta(days=6))
    for files in (changed, FILES):  # as it was, and with something to build
        with pytest.raises(RemoteError, match="the bucket's CA ended on") as over:
            await bucket.build(files)
        assert (over.value.code, over.value.help) == ("authority_ended", NEW_AUTHORITY_HELP)

    write_authority(directory)
    renewed = await bucket.build(changed)
    assert (renewed.issued_certificates, list(renewed.warnings)) == (2, [])


async def test_an_end_of_a_ca_that_signed_nothing_concerns_nobody(bucket: BucketClient, clock: ShiftedClock) -> None:
    write_authority(bucket.catalog.running.settings.ca_dir, days=20)
    assert not (await bucket.build()).warnings
    clock.advance(timedelta(days=30))
    assert not (await bucket.build()).warnings
    authority = (await list_certificates(bucket)).authority
    assert (authority.state, authority.in_use) == (pb.CERTIFICATE_STATE_ENDED, False)


@pytest.mark.parametrize(
    ("days", "state", "left", "help_"),
    [
        (0, pb.CERTIFICATE_STATE_VALID, 59, ""),
        (49, pb.CERTIFICATE_STATE_VALID, 10, ""),
        (57, pb.CERTIFICATE_STATE_ENDS_SOON, 2, RENEW_HELP),
        (150, pb.CERTIFICATE_STATE_ENDED, -91, RENEW_HELP),
    ],
)
async def test_what_is_left_of_a_leaf_is_told_and_those_that_end_can_be_asked_for_alone(
    bucket: BucketClient, clock: ShiftedClock, days: int, state: "pb.CertificateState.ValueType", left: int, help_: str
) -> None:
    await bucket.build(FILES)
    clock.advance(timedelta(days=days))
    listed = await list_certificates(bucket)
    assert {(leaf.state, leaf.days_left, leaf.help) for leaf in listed.certificates} == {(state, left, help_)}
    ending = await list_certificates(bucket, ending_only=True)
    assert len(ending.certificates) == (0 if state == pb.CERTIFICATE_STATE_VALID else 2)
    assert ending.authority == listed.authority
    assert (ending.authority.common_name, ending.authority.in_use, ending.authority.message) == ("test CA", True, "")


async def test_those_that_end_come_in_pages(bucket: BucketClient, clock: ShiftedClock) -> None:
    await bucket.build(FILES)
    clock.advance(timedelta(days=57))
    first = await list_certificates(bucket, ending_only=True, page_size=1)
    rest = await list_certificates(bucket, ending_only=True, page_size=1, page_token=first.next_page_token)
    assert [leaf.worker for page in (first, rest) for leaf in page.certificates] == ["10.0.0.1", "10.0.0.2"]
    assert rest.next_page_token == ""


async def test_without_a_ca_certificates_are_refused_and_the_rest_is_fine(bucket: BucketClient) -> None:
    for name in ("ca.crt", "ca.key"):
        (bucket.catalog.running.settings.ca_dir / name).unlink()

    assert (await bucket.build()).changed
    with pytest.raises(RemoteError) as caught:
        await bucket.build(FILES)
    assert (caught.value.status.name, caught.value.code) == ("FAILED_PRECONDITION", "bad_authority")


async def test_a_ca_that_ended_is_refused(bucket: BucketClient) -> None:
    write_authority(bucket.catalog.running.settings.ca_dir, days=0)

    with pytest.raises(RemoteError) as caught:
        await bucket.build(FILES)
    assert (caught.value.code, caught.value.help) == ("authority_ended", NEW_AUTHORITY_HELP)


async def test_a_ca_whose_key_is_anothers_is_refused(bucket: BucketClient) -> None:
    directory = bucket.catalog.running.settings.ca_dir
    kept = (directory / "ca.crt").read_bytes()
    write_authority(directory)
    (directory / "ca.crt").write_bytes(kept)

    with pytest.raises(RemoteError) as caught:
        await bucket.build(FILES)
    assert caught.value.code == "bad_authority"
