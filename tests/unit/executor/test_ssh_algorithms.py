"""What a login offers: fast algorithms first, then everything asyncssh offers; what `ssh_config` says counts."""

from pathlib import Path
from typing import Any

import pytest
from asyncssh import SSHClientConnectionOptions
from asyncssh.encryption import get_default_encryption_algs
from asyncssh.kex import get_default_kex_algs

from maand_executor.ssh.algorithms import ALGORITHMS_FILE, PREFERRED_ALGORITHMS


def beside(path: Path, text: str) -> dict[str, Any]:
    """Return the options of a login with an `ssh_config`."""
    path.write_text(text)
    return {"config": [str(path), str(ALGORITHMS_FILE)]}


@pytest.mark.parametrize("with_ssh_config", [False, True])
def test_the_fast_ones_are_first_and_nothing_is_left_out(with_ssh_config: bool, tmp_path: Path) -> None:
    way = {"config": None, **PREFERRED_ALGORITHMS}
    if with_ssh_config:
        way = beside(tmp_path / "ssh_config", "Host bastion\n  User jump\n  KexAlgorithms ecdh-sha2-nistp521\n")
    options = SSHClientConnectionOptions(host="10.0.0.1", **way)

    assert (options.kex_algs[0], options.encryption_algs[0]) == (b"curve25519-sha256", b"aes128-gcm@openssh.com")
    assert set(options.kex_algs) == set(get_default_kex_algs())
    assert set(options.encryption_algs) == set(get_default_encryption_algs())
    assert options.compression_algs[0] == b"none"


def test_what_ssh_config_says_of_a_host_counts(tmp_path: Path) -> None:
    way = beside(tmp_path / "ssh_config", "Host 10.0.0.1\n  KexAlgorithms ecdh-sha2-nistp521\n  Ciphers +aes256-cbc\n")
    options = SSHClientConnectionOptions(host="10.0.0.1", **way)

    assert options.kex_algs == [b"ecdh-sha2-nistp521"]
    assert options.encryption_algs == [*get_default_encryption_algs(), b"aes256-cbc"]
