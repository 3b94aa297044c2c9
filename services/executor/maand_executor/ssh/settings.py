"""How an executor deals with SSH servers: limits and times that `maand.conf` does not name, each with its reason.

Every open connection is one file descriptor. The usual soft limit is 1,024, kept that low for programs that call select(2); the
hard limit is what the system really allows, so the executor takes what it needs of that when it starts.
"""

import resource
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class SshSettings:
    """Limits of one executor. `max_ssh_sessions` and `ssh_starts_per_second` come from the bucket."""

    connect_timeout: timedelta = timedelta(seconds=10)
    """Limit of one login, from its turn on. It takes 20 ms, under load a second; one that takes longer counts as gone."""
    agent_timeout: timedelta = timedelta(seconds=5)
    """How long an SSH agent may take to list its keys, a millisecond else; one behind a lost connection is silent for ever."""
    logins_at_once: int = 64
    """Logins under way at the same time, of one bucket: more than a core here can do, fewer than what sshd's default MaxStartups
    (10:30:100) refuses outright where many workers are behind one address. A worker that is off holds a place for 10 s."""
    connect_attempts: int = 10
    """Logins tried while the server drops us before authentication: enough for a fleet behind one slow jump host with sshd's
    default MaxStartups 10:30:100 (six lost one login in 150 there). That a server drops everybody is told after 15 s."""
    retry_pause: timedelta = timedelta(milliseconds=200)
    """Pause before the second attempt, doubled each time, with jitter of a half to the whole, so that a crowd spreads."""
    longest_retry_pause: timedelta = timedelta(seconds=3)
    """At most so long: by then most of the crowd is through."""
    keepalive_interval: timedelta = timedelta(seconds=5)
    """A silent connection is asked for a sign of life this often."""
    idle_keepalive_interval: timedelta = timedelta(seconds=30)
    """Likewise while nobody uses the connection: 1,000 of them asked every 5 s cost 3 % of a core. One that does not answer is
    given up after a minute, so that the next command logs in anew at once; firewalls forget connections later than that."""
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
    channels_until_one_more: int = 100
    """Channels opened in a row after which one more at once is tried again: a refusal may have been chance."""
    long_wait: timedelta = timedelta(seconds=5)
    """A command that waits longer for a connection, or for its turn on one, says so to its run."""
    longest_wait: timedelta = timedelta(hours=1)
    """A wait is given up when nothing of what it waits for became free for so long: hardly anything on workers takes longer."""
    grace: timedelta = timedelta(seconds=5)
    """Between TERM and KILL of a remote process tree: a Ctrl-C must be over within 10 s."""
    kill_time: timedelta = timedelta(seconds=3)
    """For the KILL on a worker after the grace, which it counts in whole seconds, and its word back."""
    heartbeat: timedelta = timedelta(seconds=10)
    """How often a running command is told that we are still there."""
    silence: timedelta = timedelta(seconds=30)
    """Silence after which a worker ends a command: three heartbeats, and longer than we take to give the connection up. A copy in
    which not a byte comes or goes for that long ends too, on both sides."""
    drain: timedelta = timedelta(seconds=1)
    """Output read after the command ended while something it left behind holds the channel open, as `ssh` never lets go of."""
    copies_at_once: int = 16
    """rsync processes at once: each has two processes here and reads the files it compares; more thrash the disk."""
    copy_stall: timedelta = timedelta(seconds=5)
    """A copy in which nothing moves for that long gives its place among `copies_at_once` to the next: 100 workers that hang hold
    others up for half a minute, not for their silence each."""


ENOUGH = 16_384
"""What the soft limit is raised to at most. Hooks inherit it: a program that closes every number it may have does so in 1 ms."""
FOR_THE_REST = 512
"""Descriptors left to everything else: six for each copy, some for each hook, callers, databases, files that are read."""
ENOUGH_FOR_ALL = 512
"""With fewer, fewer copies are made at once."""
FEWEST = 64
"""What the services of a bucket hold, one copy, a few connections and hooks. With fewer nothing can be deployed."""
SERVICES_HOLD = 35
"""Descriptors of catalog, executor and gateway in one process that does nothing."""
FOR_A_COPY = 10
"""Descriptors that a copy holds at most: four ends of pipes, output and errors of rsync, and what it takes to start it."""


def raise_soft_limit() -> int:
    """Let this process open up to `ENOUGH` descriptors, as far as the hard limit goes; return its soft limit now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return ENOUGH if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def copies_that_fit(soft_limit: int) -> int:
    """Return how many copies may be made at once: in half of what services and connections leave; the rest is for hooks."""
    left = soft_limit - SERVICES_HOLD - connections_that_fit(soft_limit)
    return max(1, min(SshSettings.copies_at_once, left // 2 // FOR_A_COPY))


def connections_that_fit(soft_limit: int) -> int:
    """Return how many connections may be open at once: all but those for the rest, and at least a quarter of few."""
    return max(1, (soft_limit - SERVICES_HOLD) // 4, soft_limit - FOR_THE_REST)
