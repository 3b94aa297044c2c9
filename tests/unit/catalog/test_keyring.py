"""Encryption at rest: what is sealed opens only where it was sealed for, and a key file is used only when it is in order."""

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_catalog.sealing.keyring import BadKeyFile, CannotDecrypt, Keyring, Plaintext, Sealed, associated_data

PLACE = associated_data("kv", "b", "secrets/job/api", "token", 1)


def a_line(key_id: str, key: bytes | None = None) -> str:
    return f"{key_id}:{base64.urlsafe_b64encode(key or os.urandom(32)).decode()}"


def a_key_file(directory: Path, *lines: str) -> Path:
    path = directory / "kv.key"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_sealed_value_opens_where_it_was_sealed_for(tmp_path: Path) -> None:
    keyring = Keyring(a_key_file(tmp_path, a_line("k1")))

    assert keyring.open(keyring.seal(Plaintext("grüezi"), PLACE), PLACE).reveal() == "grüezi"


@pytest.mark.parametrize(
    "elsewhere",
    [
        associated_data("kv", "c", "secrets/job/api", "token", 1),
        associated_data("kv", "b", "secrets/job/web", "token", 1),
        associated_data("kv", "b", "secrets/job/api", "other", 1),
        associated_data("kv", "b", "secrets/job/api", "token", 2),
        associated_data("hook_env", "b", "secrets/job/api", "token", 1),
    ],
)
def test_a_sealed_value_opens_nowhere_else(tmp_path: Path, elsewhere: bytes) -> None:
    keyring = Keyring(a_key_file(tmp_path, a_line("k1")))
    sealed = keyring.seal(Plaintext("x"), PLACE)

    with pytest.raises(CannotDecrypt):
        keyring.open(sealed, elsewhere)


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    keyring = Keyring(a_key_file(tmp_path, a_line("k1")))
    sealed = keyring.seal(Plaintext("x"), PLACE)

    for at in range(len(sealed.data)):
        broken = bytearray(sealed.data)
        broken[at] ^= 1
        with pytest.raises(CannotDecrypt):
            keyring.open(Sealed(key_id=sealed.key_id, data=bytes(broken)), PLACE)


def test_every_value_gets_a_fresh_nonce(tmp_path: Path) -> None:
    keyring = Keyring(a_key_file(tmp_path, a_line("k1")))

    assert len({keyring.seal(Plaintext("same"), PLACE).data for _ in range(100)}) == 100


def test_the_last_line_encrypts_and_all_lines_decrypt(tmp_path: Path) -> None:
    old, new = a_line("k1"), a_line("k2")
    keyring = Keyring(a_key_file(tmp_path, old))
    sealed = keyring.seal(Plaintext("x"), PLACE)

    a_key_file(tmp_path, old, new)
    keyring.reload()

    assert keyring.newest == "k2"
    assert keyring.open(sealed, PLACE).reveal() == "x"
    assert keyring.seal(Plaintext("x"), PLACE).key_id == "k2"


def test_a_key_that_another_replica_already_uses_is_found_in_the_file(tmp_path: Path) -> None:
    old, new = a_line("k1"), a_line("k2")
    late = Keyring(a_key_file(tmp_path, old))
    early = Keyring(a_key_file(tmp_path, old, new))

    assert late.open(early.seal(Plaintext("x"), PLACE), PLACE).reveal() == "x"


def test_a_value_whose_key_is_gone_says_which(tmp_path: Path) -> None:
    keyring = Keyring(a_key_file(tmp_path, a_line("k1")))
    sealed = keyring.seal(Plaintext("x"), PLACE)
    other = Keyring(a_key_file(tmp_path, a_line("k2")))

    with pytest.raises(CannotDecrypt) as caught:
        other.open(sealed, PLACE)

    assert caught.value.facts == {"key_id": "k1"}


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["", "  "],
        ["k1"],
        ["k1:"],
        ["k1:not base64!"],
        [a_line("k1", b"too short")],
        [":" + a_line("x").partition(":")[2]],
        [a_line("k1"), a_line("k1")],
        [a_line("k" * 65)],
    ],
)
def test_a_malformed_key_file_is_refused_without_quoting_it(tmp_path: Path, lines: list[str]) -> None:
    path = a_key_file(tmp_path, *lines)

    with pytest.raises(BadKeyFile) as caught:
        Keyring(path)

    secrets = [line.partition(":")[2] for line in lines if len(line.partition(":")[2]) > 8]
    assert not any(secret in str(caught.value) for secret in secrets)


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadKeyFile):
        Keyring(tmp_path / "none")


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = a_key_file(tmp_path, a_line("k1"))
    path.chmod(mode)

    with pytest.raises(BadKeyFile) as caught:
        Keyring(path)

    assert "chmod 600" in caught.value.help


def test_a_bad_file_at_reload_leaves_the_keys_in_force(tmp_path: Path) -> None:
    path = a_key_file(tmp_path, a_line("k1"))
    keyring = Keyring(path)
    sealed = keyring.seal(Plaintext("x"), PLACE)
    path.write_text("nonsense\n")

    with pytest.raises(BadKeyFile):
        keyring.reload()

    assert keyring.open(sealed, PLACE).reveal() == "x"


def test_a_keyring_and_a_plaintext_print_no_secret(tmp_path: Path) -> None:
    line = a_line("k1")
    keyring = Keyring(a_key_file(tmp_path, line))

    assert repr(keyring) == "Keyring(k1)"
    assert f"{Plaintext('hunter2')} {Plaintext('hunter2')!r} {[Plaintext('hunter2')]}" == "*** *** [***]"


parts = st.lists(st.text(max_size=8), min_size=1, max_size=4)


@given(parts, parts)
def test_no_two_places_encode_alike(one: list[str], other: list[str]) -> None:
    assert (associated_data(*one) == associated_data(*other)) == (one == other)
