"""A catalog served for a test: real gRPC on a unix socket (where everyone is `local`) and on TCP (where tokens count)."""

import base64
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import grpc.aio

from maand_catalog.database.database import Database
from maand_catalog.ids import new_api_token, new_id
from maand_catalog.rules.identity import Role, token_digest
from maand_catalog.service import RunningCatalog, start_serving
from maand_catalog.settings import CatalogSettings, UpkeepIntervals
from maand_catalog.store.runs.leases import LEASE
from maand_catalog.store.tokens import create_token
from maand_contracts.catalog.v1.invocation_pb2_grpc import InvocationServiceStub
from maand_contracts.catalog.v1.run_pb2_grpc import RunServiceStub
from maand_contracts.catalog.v1.task_pb2_grpc import TaskServiceStub
from maand_contracts.catalog.v1.token_pb2_grpc import TokenServiceStub
from maand_wire.channels import OPTIONS, bearer_header, open_channel
from maand_wire.endpoints import Endpoint

QUICK = UpkeepIntervals(look_every=timedelta(milliseconds=50))

Metadata = Sequence[tuple[str, str]]


@dataclass(kw_only=True)
class Client:
    """Stubs on one channel."""

    channel: grpc.aio.Channel

    @property
    def runs(self) -> RunServiceStub:
        return RunServiceStub(self.channel)

    @property
    def invocations(self) -> InvocationServiceStub:
        return InvocationServiceStub(self.channel)

    @property
    def tasks(self) -> TaskServiceStub:
        return TaskServiceStub(self.channel)

    @property
    def tokens(self) -> TokenServiceStub:
        return TokenServiceStub(self.channel)


@dataclass(kw_only=True)
class ServedCatalog:
    """A running catalog and clients of it."""

    running: RunningCatalog
    database: Database
    tcp_address: str
    local: Client
    opened: list[grpc.aio.Channel] = field(default_factory=list)

    def anonymous(self) -> Client:
        """Return a client over TCP without a token; calls may bring their own metadata."""
        self.opened.append(grpc.aio.insecure_channel(self.tcp_address, options=OPTIONS))
        return Client(channel=self.opened[-1])

    async def token_for(self, role: Role) -> Metadata:
        """Create an API token and return the metadata that presents it."""
        secret = new_api_token()
        await self.database.write(
            lambda tx: create_token(
                tx, token_id=new_id(), token_sha256=token_digest(secret), name=f"test {role}", role=role, ttl=None, actor="test"
            )
        )
        return [bearer_header(secret)]


@asynccontextmanager
async def serve(
    database: Database, directory: Path, *, lease: timedelta = LEASE, stop_grace: timedelta = timedelta()
) -> AsyncIterator[ServedCatalog]:
    """Serve a database until the block ends. The key file lies in `directory`; the socket in one with a short path."""
    sockets = Path(tempfile.mkdtemp(prefix="maand-"))
    settings = settings_for(directory, listen=f"unix:{sockets}/catalog.sock", lease=lease)
    settings = replace(settings, stop_grace=stop_grace)
    running = await start_serving(settings, database)
    over_tcp = await start_serving(replace(settings, listen="127.0.0.1:0"), database)
    channel = open_channel(Endpoint(address=running.address))
    served = ServedCatalog(
        running=running, database=database, tcp_address=over_tcp.address, local=Client(channel=channel), opened=[channel]
    )
    try:
        yield served
    finally:
        for each in served.opened:
            await each.close()
        await over_tcp.stop()
        await running.stop()
        shutil.rmtree(sockets)


def settings_for(directory: Path, *, listen: str, lease: timedelta = LEASE, database_url: str = "") -> CatalogSettings:
    """Return settings with a key file of their own."""
    key_file = directory / "kv.key"
    if not key_file.exists():
        key_file.write_text(f"test:{base64.urlsafe_b64encode(bytes(32)).decode()}\n")
        key_file.chmod(0o600)
    return CatalogSettings(
        database_url=database_url,
        kv_key_file=key_file,
        ca_dir=directory,
        listen=listen,
        lease=lease,
        upkeep=QUICK,
        stop_grace=timedelta(),
    )
