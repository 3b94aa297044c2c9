"""Errors of reaching workers. Each names the worker, and what to do.

SshError
  WorkerUnreachable        nothing could be connected to at its address
    ConnectionUnusable     something answered, but no command could be begun
      NoCommonAlgorithm    an SSH server answered that offers none of our algorithms
    ConnectionLost         the connection broke while a command ran: how it ended is not known
  CannotConnect            something on the executor's side is in the way, whatever the worker is like
    AgentUnusable          the SSH agent is gone, silent, or has no keys
    NothingFree            no connection, or turn on one, became free for too long
  HostKeyRefused
    HostKeyUnknown         nothing pinned
    HostKeyChanged         something else pinned
      HostKeyNotConfirmed  something else shown than what was confirmed
  AuthenticationRefused    the worker does not accept the key
  KeyUnusable              the private key cannot be read
  KnownHostsUnreadable     secrets/known_hosts cannot be understood
  KnownHostsUnwritable     no key can be pinned there
  CommandNotStarted        connected, but the command did not begin
    BashNotStarted         the user's login shell did not start bash
    SudoRefused            `sudo -n` asks for a password, or sudo is not there
    ToolsMissing           the worker lacks tools that commands need
    StaleFence             a newer owner of the run, or a newer run, was here
    ForeignWorker          `worker.json` names another bucket or worker
      ForeignOwner         another database acts on the worker
  CopyFailed               rsync said no
    CopyStoodStill         not a byte came or went for too long
"""

import os

from maand_executor.errors import ExecutorError
from maand_wire.plain_text import clean_message


class SshError(ExecutorError):
    """Something about reaching a worker went wrong. The message names the worker and says what.

    What the worker itself said in it, of any length and content, is cleaned here.
    """

    code = "ssh_error"
    jump_help = ""
    """The remedy where it was a jump host; empty: the same."""

    def __init__(self, worker: str, message: str, **facts: str) -> None:
        self.message = clean_message(message)
        super().__init__(f"{worker}: {self.message}")
        self.worker = worker
        self.facts = {"worker": worker, **{name: clean_message(fact) for name, fact in facts.items()}}
        self.help = self.help.format(worker=worker)

    def reason_on(self, worker: str) -> str:
        """Return why, for a line that names this worker: the one that the error is about is not named again."""
        return self.message if worker == self.worker else str(self)

    def of_jump_host(self, jump: str, *, worker: str) -> "SshError":
        """Return this error of a jump host as an error of a worker behind it: no sign of what that worker is like."""
        kind = ConnectionUnusable if isinstance(self, WorkerUnreachable) else type(self)
        facts = {name: fact for name, fact in self.facts.items() if name != "worker"}
        error = kind(worker, f"{jump}: {self.message}", **facts, jump_host=self.worker)
        if kind.jump_help:
            error.help = kind.jump_help.format(worker=worker, jump=self.worker)
        return error


class WorkerUnreachable(SshError):
    """No SSH connection to the worker; nothing was started on it. Check that it is up and its SSH port open."""

    code = "worker_unreachable"
    help = "check that it is up and that its SSH port is open; `maand worker ping -w {worker}` tries again"


class ConnectionUnusable(WorkerUnreachable):
    """The worker, or a host on the way to it, answered, but no command could be begun there. Look at its SSH server."""

    code = "connection_unusable"
    help = "look at its SSH server, and at jump hosts on the way; `maand worker ping -w {worker}` tries again"
    jump_help = "look at {jump} and at its SSH server, or correct `ssh_config`; `maand worker ping -w {worker}` tries again"


class NoCommonAlgorithm(ConnectionUnusable):
    """The worker's SSH server allows no algorithm that maand offers. Allow one, or ask for a legacy one in `ssh_config`."""

    code = "no_common_algorithm"
    help = (
        "allow another one in sshd_config of {worker}; or, where only a legacy one is possible, ask for it in the file that"
        " `ssh_config` names: `KexAlgorithms +NAME`, `Ciphers +NAME`, `MACs +NAME` or `HostKeyAlgorithms +NAME`"
    )


class ConnectionLost(WorkerUnreachable):
    """The connection broke while a command ran; how the command ended is not known. Look at the worker before repeating it."""

    code = "connection_lost"
    help = "look at the worker before repeating the command; `maand worker ping -w {worker}` tries to reach it"


class CannotConnect(SshError):
    """The executor cannot connect to anything: its `ssh_config`, its descriptors, its network. Mend what the message names."""

    code = "cannot_connect"
    help = "this is no worker's fault: mend it on the executor's host"


class AgentUnusable(CannotConnect):
    """The SSH agent cannot be asked, or has no key to offer. Start one that has the key, where commands are typed."""

    code = "ssh_agent_unusable"
    help = (
        "in a shell with an agent that answers, `ssh-add` the key and repeat the command (in local mode the agent of the"
        " command's SSH_AUTH_SOCK is used); or put a key into secrets/ and name it as `ssh_key` in maand.conf"
    )


class NothingFree(CannotConnect):
    """No SSH connection, or no turn on the worker's, became free for an hour; nothing was started. See which runs hold them."""

    code = "nothing_free"
    help = "`maand runs list` shows what runs, `maand runs cancel RUN` ends it; raise `max_ssh_sessions` where it is too small"


class HostKeyRefused(SshError):
    """The worker's SSH host key is not the pinned one."""

    code = "host_key_refused"


class HostKeyUnknown(HostKeyRefused):
    """No host key of the worker is pinned. Compare its fingerprint, then pin it with `maand worker trust`."""

    code = "host_key_unknown"
    help = "compare the fingerprint, then run `maand worker trust -w {worker}`"
    jump_help = "compare the fingerprint on {jump}, then add what `ssh-keyscan` prints for its address to secrets/known_hosts"


class HostKeyChanged(HostKeyRefused):
    """The worker shows another host key than the pinned one: it was reinstalled, or somebody is in between."""

    code = "host_key_changed"
    help = "if it was reinstalled, run `maand worker trust -w {worker} --force`; if not, find out who answers there"
    jump_help = "if {jump} was reinstalled, correct its lines in secrets/known_hosts; if not, find out who answers there"


class HostKeyNotConfirmed(HostKeyChanged):
    """A worker shows other host keys than those that were confirmed a moment before. Nothing of it was pinned."""

    code = "host_key_not_confirmed"
    help = "nothing of it was pinned; find out who answers there, then `maand worker trust -w {worker}` shows its keys again"


class AuthenticationRefused(SshError):
    """The worker does not accept the bucket's key for the user. Add the public key to the user's `authorized_keys`."""

    code = "authentication_refused"
    help = "add the public key of `ssh_key` to ~/.ssh/authorized_keys of that user on {worker}, or correct `ssh_user`"
    jump_help = (
        "add the public key to ~/.ssh/authorized_keys of that user on {jump}, or name the key and user of {jump} in"
        " `ssh_config` (`IdentityFile`, `User`)"
    )


class KeyUnusable(SshError):
    """The bucket's private key cannot be read. Put it into `secrets/`, without a passphrase, or name the right `ssh_key`."""

    code = "ssh_key_unusable"
    help = (
        'put the key into secrets/ without a passphrase, correct `ssh_key` in maand.conf, or set `ssh_key = ""` and repeat the'
        " command in a shell with an SSH agent"
    )


class KnownHostsUnreadable(SshError):
    """`secrets/known_hosts` cannot be understood. Correct or delete the line the message names."""

    code = "known_hosts_unreadable"
    help = "correct or delete that line of secrets/known_hosts"


class KnownHostsUnwritable(SshError):
    """A host key could not be pinned in `secrets/known_hosts`: nothing of it was changed. The message says why."""

    code = "known_hosts_unwritable"
    help = "let the executor's user write that file and its directory, and make room there"


class CommandNotStarted(SshError):
    """The worker was reached, but the command did not begin. The message says what the worker answered."""

    code = "command_not_started"


class BashNotStarted(CommandNotStarted):
    """The SSH user's login shell did not start bash: it is none (nologin), restricted (rbash), or bash is not installed."""

    code = "bash_not_started"
    help = (
        "`exec bash` must work for the SSH user on {worker}: install bash there, give the user a login shell that runs commands"
        " (`chsh -s /bin/bash USER`), or correct `ssh_user`"
    )


class SudoRefused(CommandNotStarted):
    """sudo does not let the SSH user run bash. Give it a NOPASSWD entry without requiretty, or set `use_sudo = false`."""

    code = "sudo_refused"
    help = (
        "give the SSH user a NOPASSWD entry in sudoers on {worker} (and no requiretty), or set `use_sudo = false` in maand.conf"
    )


class ToolsMissing(CommandNotStarted):
    """The worker lacks tools that maand's commands need. Install them there."""

    code = "tools_missing"
    help = "install it on {worker}, for example: apt-get install make rsync coreutils util-linux sudo"


class StaleFence(CommandNotStarted):
    """A newer owner of this run, or a newer run, was on the worker already: nothing more may be done there under this claim.

    When the catalog's database was restored from a backup, begin a new epoch: `maand-catalog new-epoch`.
    """

    code = "stale_fence"
    help = (
        "if the catalog's database is a restored backup or a copy: `maand services stop`, `maand-catalog new-epoch`, then the"
        " same command again; if not, another executor has taken over this run"
    )


class ForeignWorker(CommandNotStarted):
    """`worker.json` on the worker names another bucket or worker: the address moved, or was wrong. Correct it, or adopt it."""

    code = "foreign_worker"
    help = (
        "`maand worker adopt -w {worker}` shows what lies there, and takes it over; or correct the address in"
        " workspace/workers.json"
    )


class ForeignOwner(ForeignWorker):
    """Another database acts on the worker: this one is a copy, or that one is. Adopt the worker where this one shall serve it.

    Where this is the same database, moved or put back by hand: `maand-catalog new-epoch`.
    """

    code = "foreign_owner"
    help = (
        "where this bucket shall act on {worker} from now on: `maand worker adopt -w {worker}`; where its database is the right"
        " one, moved or put back by hand: `maand services stop`, `maand-catalog new-epoch`, then the same command again"
    )


class CopyFailed(SshError):
    """Files could not be copied. The message is rsync's; copying again repairs what is half done."""

    code = "copy_failed"


class CopyStoodStill(CopyFailed):
    """Not a byte came or went for 30 s; the message says what was waited for. Copying again repairs what is half done."""

    code = "copy_stood_still"
    help = "look at the disk, the login shell and the rsync of {worker}; the same command copies again"


def short_reason(error: Exception) -> str:
    """Return an error's own words, short: `Connection refused` rather than asyncio's account of it; with the file it is about."""
    if isinstance(error, OSError) and error.errno:
        words = os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
        return f"{error.filename}: {words}" if error.filename else words
    return str(error) or type(error).__name__
