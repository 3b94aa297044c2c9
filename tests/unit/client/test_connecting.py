"""Connecting: unix sockets, TLS with tokens and certificates, several addresses, and what is refused before anything is sent."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from maand_catalog.rules.identity import Role
from maand_catalog.service import start_serving
from maand_client import connect
from maand_client.errors import PermissionDenied, Unauthenticated, Unavailable
from maand_wire.endpoints import EndpointError
from tests.testbed.authority import TestAuthority
from tests.unit.client.conftest import Bed


async def test_a_unix_socket_needs_no_credential(bed: Bed) -> None:
    async with bed.local() as maand:
        assert (await maand.fleet.bucket()).bucket_id == bed.bucket_id


async def test_a_token_given_as_text_is_presented_over_tls(bed: Bed) -> None:
    async with await bed.remote(Role.VIEWER) as maand:
        assert [bucket.bucket_id for bucket in await maand.fleet.buckets()] == [bed.bucket_id]
        with pytest.raises(PermissionDenied, match="may not write in vars/job/api"):
            await maand.kv.put("vars/job/api", "k", "v")


async def test_a_token_file_is_read_for_every_call(bed: Bed, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("ma_unknown\n")
    async with connect(bed.addresses, bed.bucket_id, ca=bed.authority.ca, token_file=token_file) as maand:
        with pytest.raises(Unauthenticated):
            await maand.fleet.bucket()
        token_file.write_text(f"{await bed.token()}\n")
        assert (await maand.fleet.bucket()).bucket_id == bed.bucket_id


async def test_a_client_certificate_is_shown_where_one_is_asked_for(bed: Bed) -> None:
    running = await start_serving(replace(bed.settings, services_listen="127.0.0.1:0"), bed.database)
    assert running.services_address
    own = bed.authority.files("reporting")
    token = await bed.token(Role.VIEWER)
    async with connect(
        running.services_address, bed.bucket_id, ca=own.ca, token=token, certificate=own.certificate, key=own.key
    ) as maand:
        assert (await maand.fleet.bucket()).bucket_id == bed.bucket_id
    await running.server.stop(None)
    await running.housekeeper.stop()


async def test_several_addresses_are_used_in_turn(bed: Bed) -> None:
    async with await bed.remote() as maand:
        before = [replica.last_call_at for replica in bed.replicas]
        while not all(replica.last_call_at > earlier for replica, earlier in zip(bed.replicas, before, strict=True)):
            await maand.fleet.bucket()  # the second connection may stand a moment later than the first


async def test_a_call_goes_to_the_replica_that_is_left(bed: Bed) -> None:
    async with await bed.remote() as maand:
        await maand.fleet.bucket()
        await bed.kill(0)
        for _ in range(4):
            assert (await maand.fleet.bucket()).bucket_id == bed.bucket_id


async def test_a_server_of_another_authority_is_told_at_once_and_in_words(bed: Bed, tmp_path: Path) -> None:
    stranger = TestAuthority(tmp_path / "stranger")
    async with connect(bed.addresses[0], bed.bucket_id, ca=stranger.ca, token="ma_x", patience=timedelta(hours=1)) as maand:
        with pytest.raises(Unavailable, match="not signed by the CA") as raised:
            await maand.fleet.bucket()
    assert raised.value.code == "server_certificate_untrusted"


async def test_a_service_that_stays_away_is_unavailable_when_patience_is_over(tmp_path: Path) -> None:
    async with connect(f"unix:{tmp_path}/nobody", "b", patience=timedelta(milliseconds=200)) as maand:
        with pytest.raises(Unavailable):
            await maand.fleet.bucket()


async def test_a_token_is_never_sent_in_clear(bed: Bed) -> None:
    with pytest.raises(EndpointError, match="not sent in clear"):
        async with connect(bed.catalog.tcp_address, bed.bucket_id, token="ma_x"):
            pass


async def test_a_token_file_that_cannot_be_read_is_told_by_name(bed: Bed, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="missing-token"):
        async with connect(bed.addresses, bed.bucket_id, ca=bed.authority.ca, token_file=tmp_path / "missing-token"):
            pass


async def test_a_token_is_text_or_a_file(bed: Bed, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="not as both"):
        async with connect(bed.addresses, ca=bed.authority.ca, token="ma_x", token_file=tmp_path / "token"):
            pass


async def test_a_unix_socket_is_no_part_of_a_list() -> None:
    with pytest.raises(EndpointError, match="one address by itself"):
        async with connect(["unix:/run/one", "unix:/run/two"]):
            pass
