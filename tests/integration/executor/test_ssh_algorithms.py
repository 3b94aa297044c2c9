"""Hardened servers: every algorithm that asyncssh offers and the installed OpenSSH knows is enough for a login and a copy."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from asyncssh.encryption import get_default_encryption_algs, get_encryption_algs
from asyncssh.kex import get_default_kex_algs, get_kex_algs
from asyncssh.mac import get_default_mac_algs, get_mac_algs

from maand_executor.rules.facts import HostKeyPolicy
from maand_executor.ssh.copy import RemoteCopy
from maand_executor.ssh.errors import ConnectionUnusable, NoCommonAlgorithm
from tests.integration.executor.ssh_support import PATIENT, command, fact, remote_of
from tests.testbed.fixtures import MakeTestBed

pytestmark = pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")
"""cryptography will drop it one day; hardening guides of today name it."""

Offered = Callable[[], list[bytes]]


def known_to_openssh(query: str) -> list[str]:
    """Return what the installed OpenSSH knows."""
    return subprocess.run(["ssh", "-Q", query], capture_output=True, text=True, check=True).stdout.split()


def shared(query: str, offered: Offered, *, but: Offered = list) -> list[str]:
    """Return what both know, but for some."""
    ours, left_out = ({name.decode() for name in algorithms()} for algorithms in (offered, but))
    return [name for name in known_to_openssh(query) if name in ours - left_out]


KEYWORDS = {
    "KexAlgorithms": shared("kex", get_default_kex_algs),
    "Ciphers": shared("cipher", get_default_encryption_algs),
    "MACs": shared("mac", get_default_mac_algs),
}
LEGACY = {
    "KexAlgorithms": shared("kex", get_kex_algs, but=get_default_kex_algs),
    "Ciphers": shared("cipher", get_encryption_algs, but=get_default_encryption_algs),
    "MACs": shared("mac", get_mac_algs, but=get_default_mac_algs),
}
HOST_KEYS = {
    "ed25519": ("ssh-ed25519",),
    "rsa": ("rsa-sha2-256", "rsa-sha2-512"),
    **{f"ecdsa -b {bits}": (f"ecdsa-sha2-nistp{bits}",) for bits in (256, 384, 521)},
}


def settings_for(keyword: str, algorithm: str) -> dict[str, str]:
    """Return the lines of sshd_config that leave one algorithm; a MAC is asked for only where the cipher has none of its own."""
    return {keyword: algorithm, **({"Ciphers": "aes256-ctr"} if keyword == "MACs" else {})}


every = partial(pytest.mark.parametrize, ("keyword", "algorithm"))


def pairs(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Return each algorithm with its keyword."""
    return [(keyword, algorithm) for keyword, algorithms in table.items() for algorithm in algorithms]


def test_the_tables_hold_what_hardening_guides_leave() -> None:
    assert {"ecdh-sha2-nistp384", "diffie-hellman-group16-sha512", "curve25519-sha256"} <= set(KEYWORDS["KexAlgorithms"])
    assert {"aes256-ctr", "aes256-gcm@openssh.com"} <= set(KEYWORDS["Ciphers"])
    assert {"hmac-sha2-512-etm@openssh.com", "hmac-sha2-512"} <= set(KEYWORDS["MACs"])


@every(pairs(KEYWORDS))
async def test_one_algorithm_is_enough(keyword: str, algorithm: str, make_test_bed: MakeTestBed, tmp_path: Path) -> None:
    bed = make_test_bed(settings=settings_for(keyword, algorithm))
    worker = bed.start_worker()
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(bytes(range(256)) * 400)

    async with remote_of(bed) as remote:
        result = await remote.run(fact(worker), command("cat", stdin=b"x" * 100_000))
        await remote.copy(fact(worker), RemoteCopy(source=source, target="copied", sudo=False))

    assert result.stdout == b"x" * 100_000
    assert (worker.home / "copied/file").read_bytes() == (source / "file").read_bytes()


@pytest.mark.parametrize(
    ("kind", "algorithm"), [(kind, algorithm) for kind, algorithms in HOST_KEYS.items() for algorithm in algorithms]
)
async def test_one_host_key_algorithm_is_enough(kind: str, algorithm: str, make_test_bed: MakeTestBed) -> None:
    bed = make_test_bed(settings={"HostKeyAlgorithms": algorithm})
    worker = bed.new_worker()
    worker.change_host_key(*kind.split())
    worker.start()

    async with remote_of(bed, pinned=False, host_keys=HostKeyPolicy.ACCEPT_NEW) as remote:
        (key,) = await remote.scan_host_keys(fact(worker))
        await remote.connect(fact(worker))

        assert remote.host_key_states(fact(worker), [key]) == ("pinned",)


@every(pairs(LEGACY))
async def test_a_legacy_algorithm_is_left_out_unless_ssh_config_asks(
    keyword: str, algorithm: str, make_test_bed: MakeTestBed, tmp_path: Path
) -> None:
    bed = make_test_bed(settings=settings_for(keyword, algorithm))
    worker = bed.start_worker()
    asking = tmp_path / "ssh_config"
    asking.write_text(f"Host *\n  {keyword} +{algorithm}\n")

    async with remote_of(bed) as remote:
        with pytest.raises(NoCommonAlgorithm, match=r"no .* algorithm in common .*: it offers ") as refused:
            await remote.connect(fact(worker))
    async with remote_of(bed, ssh_config=str(asking)) as remote:
        await remote.connect(fact(worker))

    assert algorithm in str(refused.value)
    assert f"`{keyword} +NAME`" in refused.value.help


async def test_a_server_without_a_host_key_that_we_accept_is_named(make_test_bed: MakeTestBed) -> None:
    bed = make_test_bed(settings={"HostKeyAlgorithms": "ssh-rsa"})
    worker = bed.new_worker()
    worker.change_host_key("rsa")
    worker.start()

    async with remote_of(bed, pinned=False, settings=replace(PATIENT, connect_attempts=2)) as remote:
        with pytest.raises(NoCommonAlgorithm, match="no SSH host key of a type that maand accepts: ssh-ed25519, "):
            await remote.scan_host_keys(fact(worker))
        with pytest.raises(ConnectionUnusable, match=r"hangs up during the key exchange .* a host key of a type we accept"):
            await remote.connect(fact(worker))
