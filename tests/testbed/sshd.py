"""Real OpenSSH workers on loopback: each an own sshd in own mount and pid namespaces, so each has its own files and processes.

    bed = SshTestBed(tmp_path)                      # user "agent" with passwordless sudo; or SshTestBed(tmp_path, user="root")
    one, two = bed.start_workers(2)                 # 127.x.y.2, 127.x.y.3, all on bed.port
    bed.write_secrets(bucket / "secrets")           # worker.key (0600) and known_hosts with every worker pinned
    one.host, one.port, one.user                    # where maand finds it
    one.path("/opt/worker/…")                       # the worker's file as the test sees it; also under /home, /root, /etc
    one.stand_in("systemctl", "#!/bin/sh\\n…")       # a command first on the PATH of the worker's user and of sudo
    one.hide("make")                                # as if it were not installed
    one.processes()                                 # command lines alive on the worker, sshd included
    with one.cut_off(): …                           # packets vanish; how="reset": connections are refused and broken
    with one.frozen(): …                            # SIGSTOP of everything on it
    one.stop(); one.start()                         # a reboot: processes are gone, files stay
    one.change_host_key()                           # as if reinstalled
    crowd = bed.start_crowd(100)                    # 100 addresses (crowd.hosts) at crowd.port, all one sshd: cheap crowds
    bed.stop()                                      # ends everything it started, by pid

`max_startups`, `max_sessions` and `settings` change sshd; by default they are OpenSSH's own (10:30:100 and 10). `shell` is the
login shell of the user "agent".

Private to a worker: /opt, /home, /root, /run, /usr/local/sbin, the user database and sudoers. Everything else, /tmp and the
network included, is this machine's. The user's shell start-up files are empty, so that benchmarks measure maand. It needs root:
mount namespaces and logins of other users are what a real worker has. A worker takes about 40 ms to start and 3 MB.
"""

import ipaddress
import os
import random
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.testbed.worker import AGENT_UID, SshWorker


class SshTestBed:
    """A few workers that share one key pair of the client and one port."""

    def __init__(
        self,
        directory: Path,
        *,
        user: str = "agent",
        max_startups: str = "10:30:100",
        max_sessions: int = 10,
        settings: Mapping[str, str] | None = None,
        shell: str = "/bin/bash",
    ) -> None:
        if os.geteuid() != 0:
            raise RuntimeError("the SSH test bed needs root: run the tests as root, or in a container")
        self.directory = directory
        self.user = user
        self.key = directory / "worker.key"
        self.workers: list[SshWorker] = []
        self._settings = {"MaxStartups": max_startups, "MaxSessions": str(max_sessions), **(settings or {})}
        self._network = ipaddress.IPv4Address(f"127.{random.randint(1, 250)}.{random.randint(0, 250)}.0")
        self.port = _free_port()
        self._prepare(shell)

    def start_workers(self, count: int) -> list[SshWorker]:
        """Start that many more workers and wait until each answers."""
        begun = [self.new_worker() for _ in range(count)]
        for worker in begun:
            worker.begin()
        for worker in begun:
            worker.wait_until_it_answers()
        return begun

    def start_worker(self) -> SshWorker:
        """Start one more worker."""
        return self.start_workers(1)[0]

    def start_crowd(self, count: int) -> SshWorker:
        """Start one worker that answers at that many addresses: one machine as far as files and limits go."""
        worker = self.new_worker(count)
        worker.start()
        return worker

    @property
    def known_hosts(self) -> str:
        """What pins every worker's present host key."""
        return "".join(worker.known_hosts_lines for worker in self.workers)

    def write_secrets(self, secrets: Path, *, pinned: bool = True) -> None:
        """Write `worker.key`, its public half and `known_hosts` as a bucket keeps them; without `pinned` no host key is known."""
        secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = secrets / "worker.key"
        key.write_bytes(self.key.read_bytes())
        key.chmod(0o600)
        key.with_suffix(".key.pub").write_bytes(self.key.with_suffix(".key.pub").read_bytes())
        (secrets / "known_hosts").write_text(self.known_hosts if pinned else "")

    def stop(self) -> None:
        """End every worker."""
        for worker in self.workers:
            worker.stop()

    def new_worker(self, addresses: int = 1) -> SshWorker:
        """Return one more worker, not yet started."""
        first = self._network + 2 + sum(len(worker.hosts) for worker in self.workers)
        hosts = [str(first + number) for number in range(addresses)]
        worker = SshWorker(
            self.directory / "workers" / hosts[0],
            hosts=hosts,
            port=self.port if addresses == 1 else _free_port(),
            user=self.user,
            shared=self.directory / "shared",
            settings=self._settings,
        )
        self.workers.append(worker)
        return worker

    def _prepare(self, shell: str) -> None:
        shared = self.directory / "shared"
        shared.mkdir(parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "maand", "-f", str(self.key)], check=True)
        (shared / "authorized_keys").write_bytes(self.key.with_suffix(".key.pub").read_bytes())
        account = f"agent:x:{AGENT_UID}:{AGENT_UID}::/home/agent:{shell}\n"
        (shared / "passwd").write_text(_without_agent("/etc/passwd") + account)
        (shared / "group").write_text(_without_agent("/etc/group") + f"agent:x:{AGENT_UID}:\n")
        _write_private(shared / "shadow", "root:*:19000:0:99999:7:::\nsshd:!:19000::::::\nagent:*:19000:0:99999:7:::\n", 0o600)
        _write_private(shared / "sudoers", SUDOERS, 0o440)


SUDOERS = """\
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL) NOPASSWD: ALL
agent ALL=(ALL) NOPASSWD: ALL
"""


def _without_agent(path: str) -> str:
    return "".join(line for line in Path(path).read_text().splitlines(keepends=True) if not line.startswith("agent:"))


def _write_private(path: Path, text: str, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
