"""How an executor deals with SSH servers: limits and times that `maand.conf` does not name, each with its reason."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class SshSettings:
    """Limits of one executor. `max_ssh_sessions` and `ssh_starts_per_second` come from the bucket."""

    connect_timeout: timedelta = timedelta(seconds=10)
    """Limit of one login. A login takes 20 ms; a worker under load a second; one that takes longer is as good as gone."""
    connect_attempts: int = 6
    """Logins tried while the server drops us before authentication: enough for 100 at once against MaxStartups 10:30:100."""
    retry_pause: timedelta = timedelta(milliseconds=200)
    """Pause before the second attempt, doubled each time, with jitter of a half to the whole, so that a crowd spreads."""
    keepalive_interval: timedelta = timedelta(seconds=5)
    """A silent connection is asked for a sign of life this often."""
    keepalive_count: int = 3
    """Unanswered signs of life after which the connection counts as lost: 15 to 20 s, below the lease of two renewals."""
    channels_per_connection: int = 8
    """Below sshd's default MaxSessions 10, which leaves room for a person; lowered when a server refuses earlier."""
    channel_timeout: timedelta = timedelta(seconds=30)
    """Limit of opening a channel; above the keepalive's, which finds a dead connection first and lets a fresh one be tried."""
    refusal_pause: timedelta = timedelta(milliseconds=20)
    """Pause after a refused channel, longer each time: sshd forgets an ended session only after it read that we closed it."""
    lone_refusals: int = 10
    """Refusals in a row, with no other channel open, after which the server is taken to allow none at all: after a second."""
    grace: timedelta = timedelta(seconds=5)
    """Between TERM and KILL of a remote process tree: a Ctrl-C must be over within 10 s."""
    heartbeat: timedelta = timedelta(seconds=10)
    """How often a running command is told that we are still there."""
    silence: timedelta = timedelta(seconds=30)
    """Silence after which a worker ends a command: three heartbeats, and longer than we take to give the connection up."""
    drain: timedelta = timedelta(seconds=1)
    """Output read after the command ended while something it left behind holds the channel open, as `ssh` never lets go of."""
    copies_at_once: int = 16
    """rsync processes at once: each has two processes here and reads the files it compares; more thrash the disk."""
