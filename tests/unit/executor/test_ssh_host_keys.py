"""Pinned host keys: read once, compared, added, replaced."""

import os
from pathlib import Path

import asyncssh
import pytest

from maand_executor.ssh.errors import KnownHostsUnreadable, KnownHostsUnwritable
from maand_executor.ssh.host_keys import HostKey, HostKeys, Pin, PinState, describe_host_key


def new_key(kind: str = "ssh-ed25519") -> HostKey:
    return describe_host_key(asyncssh.generate_private_key(kind).convert_to_public())


def state_of(keys: HostKeys, host: str, port: int, key: HostKey) -> PinState:
    (state,) = keys.states_of(host, port, [key])
    return state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def test_a_key_is_described_by_its_openssh_fingerprint() -> None:
    key = new_key()

    assert key.algorithm == "ssh-ed25519"
    assert key.fingerprint.startswith("SHA256:")
    assert key.text.startswith("ssh-ed25519 AAAA")


def test_without_a_file_nothing_is_pinned(path: Path) -> None:
    assert state_of(HostKeys(path), "10.0.0.1", 22, new_key()) is PinState.UNKNOWN


@pytest.mark.parametrize(("port", "line"), [(22, "10.0.0.1 "), (2222, "[10.0.0.1]:2222 ")])
def test_a_pinned_key_is_written_as_openssh_does_and_known_from_then_on(path: Path, port: int, line: str) -> None:
    keys, key = HostKeys(path), new_key()

    keys.pin([Pin(host="10.0.0.1", port=port, keys=(key,))])
    keys.pin([Pin(host="10.0.0.1", port=port, keys=(key,))])

    assert path.read_text() == f"{line}{key.text}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert state_of(keys, "10.0.0.1", port, key) is PinState.PINNED
    assert state_of(keys, "10.0.0.1", port, new_key()) is PinState.CHANGED
    assert state_of(keys, "10.0.0.2", port, key) is PinState.UNKNOWN


def test_a_host_that_shows_its_pinned_key_may_show_others_of_other_types(path: Path) -> None:
    keys, pinned, rsa, other = HostKeys(path), new_key(), new_key("ssh-rsa"), new_key()
    keys.pin([Pin(host="10.0.0.1", port=22, keys=(pinned,))])

    assert keys.states_of("10.0.0.1", 22, [pinned, rsa]) == (PinState.PINNED, PinState.UNKNOWN)
    assert keys.states_of("10.0.0.1", 22, [rsa]) == (PinState.CHANGED,)
    assert keys.states_of("10.0.0.1", 22, [other, rsa]) == (PinState.CHANGED, PinState.CHANGED)
    keys.pin([Pin(host="10.0.0.1", port=22, keys=(rsa,))])
    assert keys.states_of("10.0.0.1", 22, [pinned, new_key("ssh-rsa")]) == (PinState.PINNED, PinState.CHANGED)
    assert keys.states_of("10.0.0.1", 22, [other, rsa]) == (PinState.CHANGED, PinState.PINNED)


def test_many_hosts_are_pinned_in_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    keys, key = HostKeys(path), new_key()

    keys.pin([Pin(host=f"10.0.0.{number}", port=22, keys=(key,)) for number in range(200)])

    assert len(synced) == 1
    assert path.read_text().splitlines() == [f"10.0.0.{number} {key.text}" for number in range(200)]


def test_what_somebody_writes_during_a_write_is_taken_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, ours, theirs = HostKeys(path), new_key(), new_key()
    path.write_text("")
    fsync = os.fsync

    def write_meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        path.write_text(f"10.0.0.2 {theirs.text}\n")

    monkeypatch.setattr(os, "fsync", write_meanwhile)
    keys.pin([Pin(host="10.0.0.1", port=22, keys=(ours,))])

    assert path.read_text() == f"10.0.0.2 {theirs.text}\n10.0.0.1 {ours.text}\n"
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    keys, key = HostKeys(tmp_path / "gone" / "known_hosts"), new_key()

    with pytest.raises(KnownHostsUnwritable, match="gone/known_hosts: No such file or directory"):
        keys.pin([Pin(host="10.0.0.1", port=22, keys=(key,))])
    with pytest.raises(KnownHostsUnwritable, match="gone/known_hosts: No such file or directory"):
        keys.pin_at_first_sight("10.0.0.1", 22, key)


def test_replacing_touches_only_the_lines_of_that_host(path: Path) -> None:
    old, other, new = new_key(), new_key(), new_key()
    path.write_text(f"# people wrote this\n10.0.0.1 {old.text}\n10.0.0.2 {other.text}\n10.0.0.* {other.text}\n")

    HostKeys(path).pin([Pin(host="10.0.0.1", port=22, keys=(new,), replace=True)])

    assert path.read_text() == f"# people wrote this\n10.0.0.2 {other.text}\n10.0.0.* {other.text}\n10.0.0.1 {new.text}\n"


def test_a_hashed_name_is_found_and_replaced(path: Path) -> None:
    old, new = new_key(), new_key()
    path.write_text(f"10.0.0.1 {old.text}\n")
    os.spawnlp(os.P_WAIT, "ssh-keygen", "ssh-keygen", "-q", "-H", "-f", str(path))
    keys = HostKeys(path)
    assert path.read_text().startswith("|1|")
    assert state_of(keys, "10.0.0.1", 22, old) is PinState.PINNED

    keys.pin([Pin(host="10.0.0.1", port=22, keys=(new,), replace=True)])

    assert path.read_text() == f"10.0.0.1 {new.text}\n"


def test_the_file_is_parsed_once_and_again_when_it_changed(path: Path) -> None:
    one, two = new_key(), new_key()
    path.write_text(f"10.0.0.1 {one.text}\n")
    keys = HostKeys(path)

    first = keys.current()
    assert keys.current() is first

    path.write_text(f"10.0.0.1 {two.text}\n\n")
    assert keys.current() is not first
    assert state_of(keys, "10.0.0.1", 22, two) is PinState.PINNED


def test_a_line_that_cannot_be_understood_is_named(path: Path) -> None:
    path.write_text("nonsense\n")

    with pytest.raises(KnownHostsUnreadable, match="nonsense"):
        HostKeys(path).current()


def test_keys_pinned_at_first_sight_are_lines_that_others_read_too(path: Path) -> None:
    keys, pinned = HostKeys(path), {f"10.0.0.{number}": new_key() for number in range(5)}

    for host, key in pinned.items():
        assert state_of(keys, host, 2222, key) is PinState.UNKNOWN
        keys.pin_at_first_sight(host, 2222, key)
        assert state_of(keys, host, 2222, key) is PinState.PINNED

    assert path.read_text() == "".join(f"[{host}]:2222 {key.text}\n" for host, key in pinned.items())
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(state_of(HostKeys(path), host, 2222, key) is PinState.PINNED for host, key in pinned.items())


def test_a_large_new_fleet_is_pinned_without_reading_the_file_again_each_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    import_known_hosts = asyncssh.import_known_hosts

    def note_and_import(text: str) -> asyncssh.SSHKnownHosts:
        read.append(text)
        return import_known_hosts(text)

    monkeypatch.setattr(asyncssh, "import_known_hosts", note_and_import)
    keys, key = HostKeys(path), new_key()

    for number in range(300):
        keys.pin_at_first_sight(f"10.0.{number // 250}.{number % 250}", 22, key)
        keys.current()

    assert len(keys.pinned("10.0.1.49", 22)) == 1
    assert len(read) <= 2


@pytest.mark.parametrize("text", ["", "\n", "# people wrote this", "10.9.9.9 ssh-ed25519 AAAA"])
def test_a_first_sight_leaves_what_the_file_holds_whole(path: Path, text: str) -> None:
    path.write_text(text)
    keys, key = HostKeys(path), new_key()

    keys.pin_at_first_sight("10.0.0.1", 22, key)

    assert path.read_text().splitlines() == [*text.splitlines(), f"10.0.0.1 {key.text}"]
    assert state_of(keys, "10.0.0.1", 22, key) is PinState.PINNED


def test_what_others_pin_in_between_is_not_lost(path: Path) -> None:
    ours, theirs, first, second = HostKeys(path), HostKeys(path), new_key(), new_key()
    ours.pin_at_first_sight("10.0.0.1", 22, first)
    theirs.pin_at_first_sight("10.0.0.2", 22, second)
    theirs.pin([Pin(host="10.0.0.3", port=22, keys=(second,))])
    ours.pin_at_first_sight("10.0.0.4", 22, first)

    for keys in (ours, theirs):
        assert [len(keys.pinned(f"10.0.0.{number}", 22)) for number in (1, 2, 3, 4)] == [1, 1, 1, 1]
