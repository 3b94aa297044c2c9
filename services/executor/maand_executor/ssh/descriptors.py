"""File descriptors of this process: how many it may have, and how many of them SSH connections may take.

Every open connection is one descriptor. The usual soft limit is 1,024, kept that low for programs that call select(2); the hard
limit is what the system really allows, so the executor takes what it needs of that when it starts.
"""

import resource

ENOUGH = 16_384
"""What the soft limit is raised to at most. Hooks inherit it: a program that closes every number it may have does so in 1 ms."""
FOR_THE_REST = 512
"""Descriptors left to everything else: six for each copy, some for each hook, callers, databases, files that are read."""
FEWEST = 256
"""Sixteen copies at once and what the services hold take 130."""


def raise_soft_limit() -> int:
    """Let this process open up to `ENOUGH` descriptors, as far as the hard limit goes; return its soft limit now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return ENOUGH if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def connections_that_fit(soft_limit: int) -> int:
    """Return how many connections may be open at once: all but those for the rest, and at least a quarter of few."""
    return max(1, soft_limit // 4, soft_limit - FOR_THE_REST)
