"""What the bucket's OpenSSH client configuration says of hosts: addresses, jump hosts in order, keys; and what is wrong in it."""

import errno
import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.ssh.client_config import ClientConfig, Hop, Route, parse_hop
from maand_executor.ssh.errors import AgentUnusable, CannotConnect, ConnectionUnusable, SshError, WorkerUnreachable, short_reason
from maand_executor.ssh.jumps import Way
from maand_executor.ssh.login_errors import connection_error
from maand_executor.steps.failures import kind_of_ssh_error


@pytest.mark.parametrize(
    ("hop", "parts"),
    [
        ("bastion", ("bastion", None, None)),
        ("me@bastion:2222", ("bastion", 2222, "me")),
        ("me@[fd00::1]:22", ("fd00::1", 22, "me")),
        ("fd00::1", ("fd00::1", None, None)),
        (" a@b@c ", ("c", None, "a@b")),
    ],
)
def test_a_hop_is_split_into_host_port_and_user(hop: str, parts: tuple[str, int | None, str | None]) -> None:
    assert parse_hop(hop) == parts


async def route(tmp_path: Path, text: str, name: str = "web1") -> Route:
    path = tmp_path / "ssh_config"
    path.write_text(text)
    return await ClientConfig(path).find_route(name, port=22, user="agent")


def names(found: Route) -> list[str]:
    return [f"{hop.user}@{hop.name}={hop.address}" for hop in found.jumps]


async def test_without_a_file_a_worker_is_where_its_name_says() -> None:
    found = await ClientConfig(None).find_route("fd00::1", port=2222, user="agent")

    assert found == Route(target=Hop(name="fd00::1", host="fd00::1", port=2222, user="agent"))
    assert found.target.address == "[fd00::1]:2222"


async def test_a_worker_keeps_user_and_port_of_the_bucket_and_takes_the_address_of_the_file(tmp_path: Path) -> None:
    found = await route(tmp_path, "Host web1\n  HostName 10.0.0.5\n  Port 99\n  User nobody\n")

    assert (found.target.host, found.target.port, found.target.user) == ("10.0.0.5", 22, "agent")


@pytest.mark.parametrize(
    ("text", "jumps"),
    [
        ("Host web1\n  ProxyJump none\n", []),
        ("Host web1\n  ProxyJump me@j1:2222\n", ["me@j1=j1:2222"]),
        ("Host web1\n ProxyJump j1,me@j2\nHost j?\n User root\n Port 7\n", ["root@j1=j1:7", "me@j2=j2:7"]),
        ("Host j1\n HostName x\n User a\nHost web1\n ProxyJump b@j2\nHost j2\n ProxyJump j1\n", ["a@j1=x:22", "b@j2=j2:22"]),
        ("Host j3\n ProxyJump me@j1\nHost web1\n ProxyJump me@j2,me@j3\n", ["me@j2=j2:22", "me@j3=j3:22"]),
        ("Host *\n  ProxyJump me@j1\n", ["me@j1=j1:22"]),
        ("Host j1\n ProxyJump me@j2\nHost j2\n ProxyJump me@j1\nHost web1\n ProxyJump me@j1\n", ["me@j2=j2:22", "me@j1=j1:22"]),
    ],
)  # fmt: skip
async def test_jump_hosts_come_in_the_order_of_the_way(tmp_path: Path, text: str, jumps: list[str]) -> None:
    assert names(await route(tmp_path, text)) == jumps


async def test_keys_and_agents_are_taken_as_written_and_not_read(tmp_path: Path) -> None:
    text = "IdentityFile ~/a\nIdentityFile /no/%h\nCertificateFile /no/c\nIdentitiesOnly yes\nIdentityAgent /run/agent\n"

    found = (await route(tmp_path, text)).target

    assert found.identity_files == ("~/a", "/no/web1")
    assert (found.certificate_files, found.identities_only, found.identity_agent) == (("/no/c",), True, "/run/agent")
    assert (await route(tmp_path, "IdentityAgent none\n")).target.identity_agent == "none"
    assert (await route(tmp_path, "")).target.identity_agent is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Port x\n", r"ssh_config:1: Invalid Port integer value: x"),
        ("\nMatch nonsense\n", r"ssh_config:2: Invalid match condition nonsense"),
        ("Host web1\n  IdentityFile\n", r"ssh_config:2: Missing IdentityFile value"),
        ("Match exec 'sleep 1'\n", r"took longer than 0\.2 s"),
        (None, r"ssh_config, cannot be read: No such file or directory"),
    ],
)
async def test_what_is_wrong_in_the_file_is_told_with_its_place(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "ssh_config"
    if text is not None:
        path.write_text(text)

    with pytest.raises(CannotConnect, match=words):
        await ClientConfig(path, limit=timedelta(seconds=0.2 if text and "sleep" in text else 30)).find_route(
            "web1", port=22, user="agent"
        )


WORKER = Hop(name="web1", host="10.0.0.5", port=2222, user="agent")


def test_an_error_of_a_jump_host_becomes_one_of_the_worker_that_says_nothing_about_it() -> None:
    jump = Hop(name="j1", host="10.0.0.1", port=2222, user="root", is_jump=True)
    error = WorkerUnreachable("j1", "no SSH connection to 10.0.0.1:2222: Connection refused", address="10.0.0.1:2222")

    told = error.of_jump_host(jump.as_jump_for("web1"), worker="web1")

    where = "jump host j1 (10.0.0.1:2222), on the way to web1"
    assert str(told) == f"web1: {where}: no SSH connection to 10.0.0.1:2222: Connection refused"
    assert type(told) is ConnectionUnusable
    assert told.facts == {"worker": "web1", "jump_host": "j1", "address": "10.0.0.1:2222"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EMFILE, "x"), CannotConnect),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), CannotConnect),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), WorkerUnreachable),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), WorkerUnreachable),
        (OSError(errno.ENETUNREACH, "x"), ConnectionUnusable),
        (OSError(errno.EHOSTUNREACH, "x"), WorkerUnreachable),
        (TimeoutError(), WorkerUnreachable),
    ],
)
def test_only_the_network_s_word_about_an_address_tells_of_an_unreachable_worker(error: Exception, kind: type[SshError]) -> None:
    told = connection_error(Way(hop=WORKER), error, answered=False, limit=timedelta(seconds=10))

    assert type(told) is kind
    assert str(told).startswith("web1: no SSH connection to 10.0.0.5:2222")


@pytest.mark.parametrize("error", [CannotConnect("web1", "x"), AgentUnusable("web1", "x")])
def test_a_local_fault_is_never_counted_as_an_unreachable_worker(error: SshError) -> None:
    assert kind_of_ssh_error(error) == pb.FAILURE_KIND_LOCAL


def test_an_error_about_a_file_names_it() -> None:
    error = OSError(errno.ENOENT, "x", "/opt/nc")

    assert short_reason(error) == f"/opt/nc: {os.strerror(errno.ENOENT)}"
