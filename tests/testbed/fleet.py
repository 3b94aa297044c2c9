"""Workers as separate hosts: each has its own network, address and sshd on port 22, besides its own files and processes.

    bed = FleetTestBed(tmp_path)        # otherwise as SshTestBed
    bed.start_workers(20)               # 198.18.x.1, 198.18.x.2, …
    with bed.workers[3].cut_off(): …    # its cable is pulled; how="reset": it answers with TCP resets
    bed.stop()                          # removes namespaces, links and the bridge too

It needs root and iproute2.
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.testbed.network import HostNetwork, Place
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import Cut, SshWorker

SSH_PORT = 22
RESET = ("INPUT", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")


class FleetWorker(SshWorker):
    """A worker with a network of its own."""

    def __init__(
        self,
        tree: Path,
        *,
        place: Place,
        hosts: Sequence[str],
        port: int,
        user: str,
        shared: Path,
        settings: Mapping[str, str],
    ) -> None:
        super().__init__(tree, hosts=hosts, port=port, user=user, shared=shared, settings=settings)
        self._place = place
        self._cut: Cut | None = None

    def cut(self, how: Cut = "drop") -> None:
        """Pull its cable, or let it answer everything with a TCP reset, until `restore`."""
        self.restore()
        self._cut = how
        if how == "drop":
            self._place.plug("down")
        else:
            subprocess.run(self._place.inside("iptables", "-w", "-I", *RESET), check=True)

    def restore(self) -> None:
        """Undo the cut."""
        if self._cut == "drop":
            self._place.plug("up")
        elif self._cut == "reset":
            subprocess.run(self._place.inside("iptables", "-w", "-D", *RESET), check=True)
        self._cut = None

    def _launcher(self) -> list[str]:
        return self._place.inside(*super()._launcher())


class FleetTestBed(SshTestBed):
    """A few workers, each a host of its own."""

    def _prepare(self, shell: str) -> None:
        super()._prepare(shell)
        self.port = SSH_PORT
        self.network = HostNetwork()

    def stop(self) -> None:
        """End every worker and remove the network."""
        super().stop()
        self.network.remove()

    def new_worker(self, addresses: int = 1) -> SshWorker:
        if addresses != 1:
            raise ValueError("a host of a fleet has one address")
        address = f"{self.network.prefix}.{len(self.workers) + 1}"
        worker = FleetWorker(
            self.directory / "workers" / address,
            place=self.network.add_host(address),
            hosts=[address],
            port=SSH_PORT,
            user=self.user,
            shared=self.directory / "shared",
            settings=self._settings,
        )
        self.workers.append(worker)
        return worker
