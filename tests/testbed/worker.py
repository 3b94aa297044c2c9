"""One OpenSSH worker of the test bed: its namespaces, its sshd, and what tests may do to it. `sshd.py` is the way in."""

import os
import shlex
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

Cut = Literal["drop", "reset"]

AGENT_UID = 54_321
USER_DATABASE = ("passwd", "group", "shadow", "sudoers")
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SshWorker:
    """A worker: files of its own under `tree`, processes of its own, reached by SSH at host and port."""

    def __init__(
        self, tree: Path, *, hosts: Sequence[str], port: int, user: str, shared: Path, settings: Mapping[str, str]
    ) -> None:
        self.tree = tree
        self.host = hosts[0]
        self.hosts = hosts
        self.port = port
        self.user = user
        self.log = tree / "sshd.log"
        self._shared = shared
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._cuts: list[list[str]] = []
        self._hidden: set[str] = set()
        self._more_host_keys: list[Path] = []
        for name in ("opt", "home", "root", "sbin", "etc"):
            (tree / name).mkdir(parents=True)
        (tree / "home" / "agent").mkdir()
        os.chown(tree / "home" / "agent", AGENT_UID, AGENT_UID)
        self._make_host_key()

    # Life ---------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, or start it again with the same files, and wait until it answers."""
        self.begin()
        self.wait_until_it_answers()

    def begin(self) -> None:
        """Start it without waiting."""
        (self.tree / "sshd_config").write_text(self._sshd_config())
        (self.tree / "boot").write_text(self._boot_script())
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._launcher(), "bash", "-e", str(self.tree / "boot")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_it_answers(self) -> None:
        """Return when its sshd greets."""
        try:
            wait_until_ssh_answers(self.host, self.port)
        except TimeoutError as error:
            raise RuntimeError(f"worker {self.host} did not start: {self.log.read_text()}") from error

    def stop(self) -> None:
        """End it and everything that runs on it at once, as a power cut would, and heal its network."""
        self.restore()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    # Files and commands -------------------------------------------------------------------------------------------------

    def path(self, path: str) -> Path:
        """Return where the test finds the worker's file or directory of that absolute path."""
        for seen, kept in {"/opt": "opt", "/home": "home", "/root": "root", "/usr/local/sbin": "sbin"}.items():
            if path == seen or path.startswith(f"{seen}/"):
                return self.tree / kept / path[len(seen) :].lstrip("/")
        raise ValueError(f"{path} is not private to a worker of the test bed")

    @property
    def home(self) -> Path:
        """Home directory of the SSH user, as the test sees it."""
        return self.path("/root" if self.user == "root" else f"/home/{self.user}")

    def stand_in(self, name: str, script: str) -> None:
        """Put a command first on the PATH of the worker's user and of sudo."""
        command = self.tree / "sbin" / name
        command.write_text(script)
        command.chmod(0o755)

    def hide(self, *names: str) -> None:
        """Take commands of /usr/bin away, as if they were not installed; a running worker is started anew."""
        (self.tree / "overlay").mkdir(exist_ok=True)
        (self.tree / "hidden").mkdir(exist_ok=True)
        for name in {*names} - self._hidden:
            os.mknod(self.tree / "hidden" / name, stat.S_IFCHR)  # what overlayfs takes for a deletion
        self._hidden.update(names)
        if self._process is not None:
            self.stop()
            self.start()

    def run(self, script: str) -> str:
        """Run a shell script on it as root, past SSH, and return what it prints."""
        done = subprocess.run(["nsenter", *self._namespaces(), "bash", "-c", script], check=True, capture_output=True, text=True)
        return done.stdout

    # Host key -----------------------------------------------------------------------------------------------------------

    @property
    def known_hosts_lines(self) -> str:
        """The line that pins its present host key, for each of its addresses."""
        kind, key, *_ = (self.tree / "host_key.pub").read_text().split()
        return "".join(f"{host if self.port == 22 else f'[{host}]:{self.port}'} {kind} {key}\n" for host in self.hosts)

    def change_host_key(self, kind: str = "ed25519", *options: str) -> None:
        """Give it another host key, as a reinstalled machine has; later connections see it."""
        for name in ("host_key", "host_key.pub"):
            (self.tree / name).unlink()
        self._make_host_key(kind, *options)

    def add_host_key(self, kind: str) -> None:
        """Give it one more host key, of another type, and start it anew."""
        path = self.tree / f"host_key_{kind}"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
        self._more_host_keys.append(path)
        self.stop()
        self.start()

    # Trouble ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def cut_off(self, how: Cut = "drop") -> Iterator[None]:
        """Cut it off while inside: its packets vanish, or are answered with a TCP reset."""
        self.cut(how)
        try:
            yield
        finally:
            self.restore()

    def cut(self, how: Cut = "drop") -> None:
        """Cut it off until `restore`."""
        answer = ["-j", "DROP"] if how == "drop" else ["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
        rule = ["INPUT", "-i", "lo", "-d", self.host, *answer]
        subprocess.run(["iptables", "-w", "-I", *rule], check=True)
        self._cuts.append(rule)

    def restore(self) -> None:
        """Undo every cut."""
        while self._cuts:
            subprocess.run(["iptables", "-w", "-D", *self._cuts.pop()], check=True)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process on it while inside, as a hung machine does."""
        while not all(_is_stopped(pid) for pid in self._pids()):  # what was being forked is stopped in the next round
            self.signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal_all(signal.SIGCONT)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process on it."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def processes(self) -> list[str]:
        """Command lines of the processes alive on it, zombies left out."""
        return [line for line in map(_command_line, self._pids()) if line]

    def wait_until_gone(self, words: str, *, seconds: float = 60.0) -> None:
        """Return when no process on it has these words in its command line; raise `TimeoutError` when one stays."""
        ends = time.monotonic() + seconds
        while any(words in line for line in self.processes()):
            if time.monotonic() > ends:
                raise TimeoutError(f"still on {self.host}: {[line for line in self.processes() if words in line]}")
            time.sleep(0.01)

    # Inside -------------------------------------------------------------------------------------------------------------

    def _launcher(self) -> list[str]:
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]

    def _pids(self) -> list[int]:
        namespace = _namespace(Path(f"/proc/{self._init_pid()}"))
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _namespace(entry) == namespace]

    def _init_pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"worker {self.host} is stopped")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0])

    def _namespaces(self) -> list[str]:
        return ["--target", str(self._init_pid()), "--mount", "--pid"]

    def _make_host_key(self, kind: str = "ed25519", *options: str) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-f", str(self.tree / "host_key")], check=True)

    def _sshd_config(self) -> str:
        fixed = {
            "Port": str(self.port),
            "HostKey": str(self.tree / "host_key"),
            "PidFile": "none",
            "AuthorizedKeysFile": "/run/authorized_keys",
            "AuthenticationMethods": "publickey",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "PerSourceMaxStartups": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "UseDNS": "no",
            "SetEnv": f"PATH={SEARCH_PATH}",
            "Subsystem": "sftp /usr/lib/openssh/sftp-server",
        }
        everywhere = len(self.hosts) > 1
        fixed["ListenAddress"] = "0.0.0.0" if everywhere else self.host
        lines = [*{**fixed, **self._settings}.items(), *(("HostKey", str(path)) for path in self._more_host_keys)]
        return "".join(f"{name} {value}\n" for name, value in lines)

    def _boot_script(self) -> str:
        mounts = {"opt": "/opt", "home": "/home", "root": "/root", "sbin": "/usr/local/sbin"}
        lines = [f"mount --bind {shlex.quote(str(self.tree / kept))} {seen}" for kept, seen in mounts.items()]
        lines += [f"mount --bind {shlex.quote(str(self._shared / name))} /etc/{name}" for name in USER_DATABASE]
        lines += ["mount -t tmpfs -o mode=755 none /run", "mkdir -m 755 /run/sshd"]
        lines.append(f"install -m 644 {shlex.quote(str(self._shared / 'authorized_keys'))} /run/authorized_keys")
        if self._hidden:
            layers = f"lowerdir=/usr/bin,upperdir={self.tree / 'hidden'},workdir={self.tree / 'overlay'}"
            lines.append(f"mount -t overlay -o {shlex.quote(layers)} none /usr/bin")
        lines.append(f"exec /usr/sbin/sshd -D -e -f {shlex.quote(str(self.tree / 'sshd_config'))}")
        return "\n".join(lines) + "\n"


def wait_until_ssh_answers(host: str, port: int, *, seconds: float = 60.0) -> None:
    """Return when an SSH server greets there; raise `TimeoutError` when none does in time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            with socket.create_connection((host, port), timeout=5.0) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.005)
    raise TimeoutError(f"no SSH server answers at {host}:{port}")


def _namespace(entry: Path) -> str:
    with suppress(OSError):
        return str((entry / "ns" / "pid").readlink())
    return ""


def _is_stopped(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ"
    return True


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
