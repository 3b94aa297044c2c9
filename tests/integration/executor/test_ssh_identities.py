"""Proofs of who we are, with real servers and agents: agents that fail, keys and certificates that `ssh_config` names."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maand_executor.ssh.errors import AgentUnusable, AuthenticationRefused, KeyUnusable
from tests.integration.executor.ssh_support import IMPATIENT, fact, remote_of, secrets_for, write_ssh_config
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed
from tests.waiting import wait_until

StartAgent = Callable[..., str]


def without_key(bed: SshTestBed) -> Path:
    secrets = bed.directory / "secrets"
    bed.write_secrets(secrets)
    (secrets / "worker.key").unlink()
    return secrets


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Start agents that hold these keys; `confirm` makes each ask before it signs."""
    running: dict[str, subprocess.Popen[bytes]] = {}

    def start(*keys: Path, confirm: bool = False) -> str:
        path = f"{tmp_path}/agent-{len(running)}.sock"
        running[path] = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL, env={"PATH": "/usr/bin"})
        wait_until(lambda: Path(path).exists())
        for key in keys:
            options = ["-c"] if confirm else []
            subprocess.run(["ssh-add", "-q", *options, str(key)], env={**os.environ, "SSH_AUTH_SOCK": path}, check=True)
        return path

    yield start
    for process in running.values():
        process.terminate()
        process.wait()


@pytest.fixture
def make_key(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)], check=True)
        return tmp_path / name

    return make


def sign(key: Path, authority: Path) -> Path:
    """Make a certificate for the user `agent`, where nobody looks for it by itself."""
    subprocess.run(["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", "agent", f"{key}.pub"], check=True)
    return Path(f"{key}-cert.pub").rename(key.with_name("elsewhere-cert.pub"))


# Agents ---------------------------------------------------------------------------------------------------------------------


async def test_an_agent_that_is_gone_is_told_as_that(
    test_bed: SshTestBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = test_bed.start_worker()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone.sock"))

    async with remote_of(test_bed, ssh_key="") as remote:
        with pytest.raises(AgentUnusable, match=rf"the SSH agent at {tmp_path}/gone.sock cannot be reached: No such file"):
            await remote.connect(fact(worker))


async def test_an_agent_that_is_silent_is_told_as_that(
    test_bed: SshTestBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = test_bed.start_worker()
    path = str(tmp_path / "silent.sock")
    monkeypatch.setenv("SSH_AUTH_SOCK", path)

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        async with remote_of(test_bed, secrets=without_key(test_bed), settings=IMPATIENT) as remote:
            with pytest.raises(AgentUnusable, match=rf"{path} does not answer within 1 s"):
                await remote.connect(fact(worker))


async def test_an_agent_without_keys_or_that_does_not_sign_is_told_as_that(
    test_bed: SshTestBed, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = test_bed.start_worker()
    for agent, words in ((start_agent(), "holds no keys"), (start_agent(test_bed.key, confirm=True), "does not sign")):
        monkeypatch.setenv("SSH_AUTH_SOCK", agent)
        async with remote_of(test_bed, ssh_key="") as remote:
            with pytest.raises(AgentUnusable, match=f"{agent} {words}"):
                await remote.connect(fact(worker))


async def test_an_agent_with_the_wrong_keys_only_is_refused_by_the_worker(
    test_bed: SshTestBed, start_agent: StartAgent, make_key: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = test_bed.start_worker()
    agent = start_agent(make_key("one"), make_key("two"))
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)

    async with remote_of(test_bed, ssh_key="") as remote:
        with pytest.raises(AuthenticationRefused, match=rf"offered: 2 keys of the SSH agent at {agent}"):
            await remote.connect(fact(worker))


async def test_an_agent_that_a_link_leads_to_may_be_replaced(
    test_bed: SshTestBed, start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = test_bed.start_workers(2)
    link = tmp_path / "agent.sock"
    link.symlink_to(tmp_path / "ended.sock")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(link))

    async with remote_of(test_bed, ssh_key="") as remote:
        with pytest.raises(AgentUnusable, match=r"ended\.sock cannot be reached"):
            await remote.connect(fact(first))
        for worker in (first, second):
            link.unlink()
            link.symlink_to(start_agent(test_bed.key))
            await remote.connect(fact(worker))


# What ssh_config says about keys --------------------------------------------------------------------------------------------


async def test_an_identity_file_serves_where_the_bucket_s_key_is_not_accepted(
    test_bed: SshTestBed, make_key: Callable[[str], Path], tmp_path: Path
) -> None:
    worker = test_bed.start_worker()
    secrets = secrets_for(tmp_path, make_key("stranger"), test_bed)
    config = write_ssh_config(tmp_path, f"IdentityFile {tmp_path}/missing\nIdentityFile {test_bed.key}\n")

    async with remote_of(test_bed, secrets=secrets, ssh_config=config) as remote:
        await remote.connect(fact(worker))


async def test_what_could_not_be_offered_is_told_with_a_refusal(
    test_bed: SshTestBed, make_key: Callable[[str], Path], tmp_path: Path
) -> None:
    worker = test_bed.start_worker()
    secrets = secrets_for(tmp_path, make_key("stranger"), test_bed)
    config = write_ssh_config(tmp_path, f"IdentityFile {tmp_path}/missing\n")

    async with remote_of(test_bed, secrets=secrets, ssh_config=config) as remote:
        with pytest.raises(AuthenticationRefused, match=r"offered: .*worker\.key; cannot read IdentityFile .*missing: No such"):
            await remote.connect(fact(worker))


async def test_a_certificate_beside_a_key_or_named_is_offered(
    make_test_bed: MakeTestBed, make_key: Callable[[str], Path], tmp_path: Path
) -> None:
    authority, user = make_key("authority"), make_key("user")
    bed = make_test_bed(settings={"TrustedUserCAKeys": f"{authority}.pub"})
    worker = bed.start_worker()
    certificate = sign(user, authority)
    secrets = secrets_for(tmp_path, user, bed)

    async with remote_of(bed, secrets=secrets) as remote:
        with pytest.raises(AuthenticationRefused):
            await remote.connect(fact(worker))
    config = write_ssh_config(tmp_path, f"CertificateFile {certificate}\n")
    async with remote_of(bed, secrets=secrets, ssh_config=config) as remote:
        await remote.connect(fact(worker))
    certificate.rename(secrets / "worker.key-cert.pub")
    async with remote_of(bed, secrets=secrets) as remote:
        await remote.connect(fact(worker))


async def test_identity_agent_is_asked_with_and_without_a_key_in_the_bucket(
    test_bed: SshTestBed, start_agent: StartAgent, make_key: Callable[[str], Path], tmp_path: Path
) -> None:
    worker = test_bed.start_worker()
    config = write_ssh_config(tmp_path, f"IdentityAgent {start_agent(test_bed.key)}\n")

    for secrets in (without_key(test_bed), secrets_for(tmp_path, make_key("stranger"), test_bed)):
        async with remote_of(test_bed, secrets=secrets, ssh_config=config) as remote:
            await remote.connect(fact(worker))


async def test_identity_agent_none_keeps_the_agent_out(
    test_bed: SshTestBed, start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = test_bed.start_worker()
    monkeypatch.setenv("SSH_AUTH_SOCK", start_agent(test_bed.key))

    async with remote_of(test_bed, ssh_key="", ssh_config=write_ssh_config(tmp_path, "IdentityAgent none\n")) as remote:
        with pytest.raises(KeyUnusable):
            await remote.connect(fact(worker))


async def test_identities_only_chooses_among_the_agent_s_keys(
    make_test_bed: MakeTestBed,
    start_agent: StartAgent,
    make_key: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bed = make_test_bed(settings={"MaxAuthTries": "2"})
    worker = bed.start_worker()
    others = [make_key(f"other-{number}") for number in range(4)]
    monkeypatch.setenv("SSH_AUTH_SOCK", start_agent(*others, bed.key))

    async with remote_of(bed, ssh_key="") as remote:
        with pytest.raises(AuthenticationRefused, match="5 keys of the SSH agent"):
            await remote.connect(fact(worker))
    for line in (f"IdentityFile {bed.key}.pub\nIdentitiesOnly yes\n", f"IdentityFile {bed.key}.pub\n"):
        async with remote_of(bed, ssh_key="", ssh_config=write_ssh_config(tmp_path, line)) as remote:
            await remote.connect(fact(worker))
    none_of_them = write_ssh_config(tmp_path, f"IdentityFile {others[0]}.missing\nIdentitiesOnly yes\n")
    async with remote_of(bed, ssh_key="", ssh_config=none_of_them) as remote:
        with pytest.raises(KeyUnusable, match="IdentitiesOnly allows no other"):
            await remote.connect(fact(worker))
