"""`true` on a crowd, by each of those who can: what is compared by ssh-cold and ssh-warm.

Everyone has the same key and known hosts, and the key exchange and cipher that maand prefers, where they can be told; peers run
fifty at once. maand goes the whole path, from the process of the command line through catalog and executor and back. Crews that
are scripts run as processes that answer turn by turn, so that the second turn finds their connections open.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import peers

AT_ONCE = 50
KEX, CIPHER = "curve25519-sha256", "aes128-gcm@openssh.com"
CREWS = Path(__file__).parent / "crews"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A crowd of workers and how it is reached. `directory` is free for the crews' own files."""

    hosts: Sequence[str]
    port: int
    user: str
    key: Path
    known_hosts: Path
    directory: Path

    def as_json(self) -> str:
        """Return all of it for a crew that is a script."""
        facts = {"hosts": list(self.hosts), "port": self.port, "user": self.user, "key": str(self.key), "at_once": AT_ONCE}
        return json.dumps({**facts, "known_hosts": str(self.known_hosts), "kex": KEX, "cipher": CIPHER})


class Crew:
    """A script that runs `true` everywhere each time it is asked to."""

    def __init__(self, python: str, script: str, target: Target) -> None:
        self._process = subprocess.Popen(
            [python, str(CREWS / script), target.as_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def turn(self) -> None:
        """Run `true` everywhere, once."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("go\n")
        answer = self._process.stdout.readline().strip()
        if answer != "done":
            raise RuntimeError(f"a crew failed: {answer or 'it ended'}")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


def once(python: str, script: str, target: Target) -> None:
    """Let a crew come, do its work once, and go."""
    crew = Crew(python, script, target)
    crew.turn()
    crew.close()


def asyncssh_once(target: Target) -> None:
    """Run the bare asyncssh script: key and host keys parsed once, nothing else done."""
    once(sys.executable, "bare_asyncssh.py", target)


def ssh(target: Target, *, masters: bool = False) -> list[str]:
    """Return an `ssh` command line without its host; with `masters`, over ControlMasters that stay open."""
    options = [f"UserKnownHostsFile={target.known_hosts}", "BatchMode=yes", f"KexAlgorithms={KEX}", f"Ciphers={CIPHER}"]
    if masters:
        options += ["ControlMaster=auto", "ControlPersist=600", f"ControlPath={target.directory}/m/%C"]
    told = [word for option in options for word in ("-o", option)]
    return ["ssh", "-F", "none", "-i", str(target.key), "-p", str(target.port), "-l", target.user, *told]


def xargs(target: Target, *, masters: bool = False) -> None:
    """Run `ssh` for each worker under xargs."""
    words = ["xargs", "-P", str(AT_ONCE), "-I", "{}", *ssh(target, masters=masters), "{}", "true"]
    subprocess.run(words, input="\n".join(target.hosts), text=True, check=True, stderr=subprocess.DEVNULL)


def close_masters(target: Target) -> None:
    """End the ControlMasters."""
    words = ["xargs", "-P", "8", "-I", "{}", *ssh(target, masters=True), "-O", "exit", "{}"]
    subprocess.run(words, input="\n".join(target.hosts), text=True, check=False, stderr=subprocess.DEVNULL)


def pyinfra(program: str, target: Target) -> None:
    """Run pyinfra."""
    facts = {"ssh_user": target.user, "ssh_port": target.port, "ssh_key": str(target.key)}
    facts["ssh_known_hosts_file"] = str(target.known_hosts)
    inventory = target.directory / "pyinfra_inventory.py"
    inventory.write_text(f"workers = ([(host, {{}}) for host in {list(target.hosts)!r}], {facts!r})\n")
    words = [program, "-y", "--parallel", str(AT_ONCE), str(inventory), "exec", "--", "true"]
    run_quietly(words, target)


def ansible(program: str, target: Target) -> None:
    """Run ansible in its leanest form: module raw, connections kept by OpenSSH, no facts."""
    inventory = target.directory / "ansible.ini"
    inventory.write_text("\n".join(target.hosts) + "\n")
    inventory.with_suffix(".cfg").touch()
    common = f"-F none -o UserKnownHostsFile={target.known_hosts} -o KexAlgorithms={KEX} -o Ciphers={CIPHER}"
    options = ["-u", target.user, "--private-key", str(target.key), "-e", f"ansible_port={target.port}"]
    kept = f"-o ControlMaster=auto -o ControlPersist=600 {common}"
    words = [program, "all", "-i", str(inventory), "-f", str(AT_ONCE), "-m", "raw", "-a", "true", *options]
    run_quietly(
        words,
        target,
        ANSIBLE_SSH_ARGS=kept,
        ANSIBLE_SSH_CONTROL_PATH_DIR=str(target.directory / "a"),
        ANSIBLE_PIPELINING="1",
        ANSIBLE_CONFIG=str(inventory.with_suffix(".cfg")),
        ANSIBLE_HOME=str(target.directory / "ansible"),
    )


def run_quietly(words: list[str], target: Target, **environment: str) -> None:
    """Run a peer; what it printed is shown only when it failed."""
    path = f"{peers.directory() / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=target.directory,
        env={**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
