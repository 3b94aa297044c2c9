"""A small network of its own for a test: a bridge on this machine and hosts behind it, each in its own network namespace.

    network = HostNetwork()                 # clears away first what killed test runs left behind
    place = network.add_host("198.18.7.2")  # namespace with lo and eth0, joined to the bridge
    network.remove()                        # links, namespaces, bridge

Names carry the process id of whoever made them, so that leftovers are told from what another test run still uses.
"""

import itertools
import os
import random
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMESPACES = Path("/run/netns")
OURS = re.compile(r"(?:maand-|mb|mv)(\d+)-")
NEVER_ROUTED = "198.18"
"""RFC 2544: addresses for tests of network devices, which no network uses."""

_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Place:
    """One host's place: its network namespace and its link, as this machine sees it."""

    address: str
    namespace: str
    link: str

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs inside its network."""
        return ["nsenter", f"--net={NAMESPACES / self.namespace}", *command]

    def plug(self, state: str) -> None:
        """Plug the cable in (`up`) or pull it (`down`)."""
        ip("link", "set", self.link, state)


class HostNetwork:
    """The network of one test bed."""

    def __init__(self) -> None:
        remove_leftovers()
        self._name = f"{os.getpid()}-{next(_numbers)}"
        self.bridge = f"mb{self._name}"
        self._places: list[Place] = []
        self.prefix = free_network()
        ip("link", "add", self.bridge, "type", "bridge")
        ip("address", "add", f"{self.prefix}.254/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    def add_host(self, address: str) -> Place:
        """Make the place of one more host."""
        number = len(self._places)
        place = Place(address=address, namespace=f"maand-{self._name}-{number}", link=f"mv{self._name}n{number}")
        self._places.append(place)
        ip("netns", "add", place.namespace)
        ip("link", "add", place.link, "type", "veth", "peer", "name", "eth0", "netns", place.namespace)
        ip("link", "set", place.link, "master", self.bridge, "up")
        inside = "link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up"
        ip("-netns", place.namespace, "-batch", "-", text="\n".join(inside))
        return place

    def remove(self) -> None:
        """Remove everything: links first, which is quicker than leaving them to their namespaces."""
        remove(links=[*(place.link for place in self._places), self.bridge], namespaces=[one.namespace for one in self._places])
        self._places.clear()


def remove_leftovers() -> None:
    """Remove what test runs left behind that were killed."""
    listed = ip("-oneline", "link", "show")
    links = [name for name in re.findall(r"^\d+: ([^:@]+)", listed, re.MULTILINE) if is_leftover(name)]
    namespaces = [entry.name for entry in NAMESPACES.glob("maand-*") if is_leftover(entry.name)]
    remove(links=links, namespaces=namespaces)


def is_leftover(name: str) -> bool:
    """Whether a name is one of ours whose maker is gone."""
    found = OURS.match(name)
    return found is not None and not Path(f"/proc/{found[1]}").exists()


def remove(*, links: list[str], namespaces: list[str]) -> None:
    """Remove links and namespaces, whatever of them is there."""
    lines = [*(f"link delete {link}" for link in links), *(f"netns delete {namespace}" for namespace in namespaces)]
    if lines:
        command = ["ip", "-force", "-batch", "-"]
        subprocess.run(command, input="\n".join(lines), text=True, check=False, capture_output=True)


def free_network() -> str:
    """Return the first three bytes of a network that nothing here uses."""
    routes = ip("-oneline", "route", "show")
    candidates = [f"{NEVER_ROUTED}.{number}" for number in range(1, 255)]
    return random.choice([prefix for prefix in candidates if f"{prefix}.0/24" not in routes])


def ip(*arguments: str, text: str = "") -> str:
    """Run iproute2's `ip`; say what it complained about when it fails."""
    done = subprocess.run(["ip", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)} {text}: {done.stderr.strip()}")
    return done.stdout
