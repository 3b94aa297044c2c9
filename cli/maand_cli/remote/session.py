"""One command's surroundings: the bucket, the services, the settings applied, and who is asking.

flags -> bucket directory -> maand.conf -> services (a context's, the environment's, or local ones, started if need be)
      -> settings applied
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from maand_cli.errors import ServiceUnreachable
from maand_cli.flags import Flags
from maand_cli.local.bucket import Bucket, Conf, find_bucket, read_conf
from maand_cli.local.contexts import choose_context
from maand_cli.local.services import ensure_services
from maand_cli.output.rows import print_note
from maand_cli.remote.catalog import Catalog, RemoteError
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint

RECONNECT_SECONDS = 30.0
RECONNECT_PAUSE_SECONDS = 0.2
ELSEWHERE_HELP = "check that it is up, and MAAND_CATALOG_ADDRESS or the context; --context local means this bucket's own services"
LOST = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
"""What a call or a stream ends with when its server goes, or stands still."""
RECOVERY_CALL_SECONDS = 5.0
"""How long one look waits for a server that came back."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a command works with."""

    flags: Flags
    bucket: Bucket
    conf: Conf
    catalog: Catalog
    catalog_endpoint: Endpoint
    executor_endpoint: Endpoint | None
    is_local: bool
    environment: Mapping[str, str]

    @property
    def parent_run_id(self) -> str:
        """The run whose hook started this command, when it works on the same bucket: its runs join that one."""
        return self.environment.get("RUN_ID", "") if self.environment.get("BUCKET_ID") == self.conf.bucket_id else ""

    def hook_env(self) -> dict[str, str]:
        """Return the values of this environment that `hook_env` in maand.conf lets through to hooks."""
        return {name: self.environment[name] for name in self.conf.hook_env if name in self.environment}


@asynccontextmanager
async def open_session(flags: Flags) -> AsyncIterator[Session]:
    """Find the bucket, reach its services (starting them in local mode) and apply its settings."""
    environment = dict(os.environ)
    bucket = find_bucket(flags.bucket, environment=environment, start=Path.cwd())
    conf = read_conf(bucket)
    named, context = choose_context(flags.context, environment=environment)
    is_local = context is None and bool(named)
    if context is not None:
        catalog, executor = context.catalog_endpoint(), context.executor_endpoint()
    else:
        catalog, executor = find_local_endpoints(bucket, flags) if is_local else read_remote_endpoints(environment)
    async with open_channel(catalog) as channel:
        session = Session(
            flags=flags,
            bucket=bucket,
            conf=conf,
            catalog=Catalog(channel, conf.bucket_id),
            catalog_endpoint=catalog,
            executor_endpoint=executor,
            is_local=is_local,
            environment=environment,
        )
        await apply_settings(session)
        yield session


async def apply_settings(session: Session) -> None:
    """Make maand.conf the settings in force.

    A local host that was just leaving, being idle, is replaced by a new one. Who may only read goes on with what is in force.
    Raises ServiceUnreachable when nobody answers at the address of a context or the environment.
    """
    try:
        await session.catalog.apply_config(session.conf.content)
    except RemoteError as error:
        if error.status is grpc.StatusCode.PERMISSION_DENIED:
            return
        if error.status is not grpc.StatusCode.UNAVAILABLE:
            raise
        if not session.is_local:
            if error.code != "unavailable":  # put into words by the wire already: certificates and their like
                raise
            address = session.catalog_endpoint.address
            raise ServiceUnreachable(f"the catalog does not answer at {address}", help=ELSEWHERE_HELP) from error
        await recover_services(session)
        await session.catalog.apply_config(session.conf.content)


async def recover_services(session: Session) -> None:
    """Bring lost local services back, or wait for remote ones. Raises ServiceUnreachable after RECONNECT_SECONDS.

    A local host that was killed accepts connections for a moment longer, so whether it serves is asked again at every turn. Any
    answer means back, a refusal too.
    """
    deadline = asyncio.get_running_loop().time() + RECONNECT_SECONDS
    while True:
        if session.is_local:
            await asyncio.to_thread(ensure_services, session.bucket, patience_seconds=RECONNECT_SECONDS)
        try:
            await session.catalog.get_bucket(repeat=False, seconds=RECOVERY_CALL_SECONDS)
        except RemoteError as error:
            if error.status not in LOST:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise ServiceUnreachable("the services went away and did not come back", help="maand services status") from error
            await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
        else:
            return


def find_local_endpoints(bucket: Bucket, flags: Flags) -> tuple[Endpoint, Endpoint]:
    """Return where the bucket's local services listen; they are started when nobody serves, and whoever waits is told."""
    services = ensure_services(bucket, lambda text: print_note(flags, f"maand: {text}"))
    return Endpoint(address=services.catalog), Endpoint(address=services.executor)


def read_remote_endpoints(environment: Mapping[str, str]) -> tuple[Endpoint, Endpoint | None]:
    """Return where the environment says that the services listen."""
    executor = Endpoint.from_environment("EXECUTOR", environment) if environment.get("MAAND_EXECUTOR_ADDRESS") else None
    return Endpoint.from_environment("CATALOG", environment), executor


def user_at_host(environment: Mapping[str, str]) -> str:
    """Return `user@host` for people."""
    import socket

    named = (environment.get(name) for name in ("SUDO_USER", "LOGNAME", "USER"))
    return f"{next(filter(None, named), None) or account_name(os.getuid())}@{socket.gethostname()}"


def account_name(uid: int) -> str:
    """Return the name of an account, or its number when it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
