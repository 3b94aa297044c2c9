"""Connecting: addresses and credentials become a client of one bucket.

| Address                          | What shows who calls                                                          |
|----------------------------------|-------------------------------------------------------------------------------|
| `unix:/path/catalog.sock`        | the socket's permissions; a token is presented when one is given              |
| `host:port`, or several of them  | TLS with `ca`, and a token, a client certificate, or both                     |

Several addresses are used in turn (round robin); one that does not answer is left out until it does.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from maand_client.calls import PATIENCE, Calls
from maand_client.fleet import Fleet
from maand_client.kv import Kv
from maand_client.runs import Runs
from maand_client.secrets import Secrets
from maand_client.semaphores import Semaphores
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint, EndpointError, TlsFiles


class Client:
    """One bucket's catalog, by nouns: `runs`, `kv`, `secrets`, `semaphores`, `fleet`."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        """For RPCs that no noun here speaks of: their stubs take `client.calls.channel`, their calls `client.calls.repeated`."""
        self.runs = Runs(calls)
        self.kv = Kv(calls)
        self.secrets = Secrets(calls)
        self.semaphores = Semaphores(calls)
        self.fleet = Fleet(calls)


@asynccontextmanager
async def connect(
    address: str | Sequence[str],
    bucket_id: str = "",
    *,
    ca: Path | None = None,
    token: str | None = None,
    token_file: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    patience: timedelta = PATIENCE,
) -> AsyncIterator[Client]:
    """Give a client of one bucket while the block runs. Nothing is asked yet: the first call connects.

    `ca` is the file with the CA that signed the catalogs' certificates; `certificate` and `key` are one's own. The token is given
    as text, or as a file that is read anew for every call. A hook needs no `bucket_id`: it sees its own. `patience` is how long a
    service may be away before a call that may be repeated, or a stream, gives up.

    Raises `EndpointError` for addresses and files that cannot be used, and for a token that would travel in clear.
    """
    endpoint = endpoint_of(address, ca=ca, certificate=certificate, key=key)
    read_token = make_token_source(endpoint, token, token_file)
    async with open_channel(endpoint) as channel:
        yield Client(Calls(channel=channel, bucket_id=bucket_id, token=read_token, patience=patience))


def endpoint_of(address: str | Sequence[str], *, ca: Path | None, certificate: Path | None, key: Path | None) -> Endpoint:
    """Return the endpoint that addresses and files describe."""
    addresses = address if isinstance(address, str) else ",".join(address)
    if "," in addresses and "unix:" in addresses:
        raise EndpointError(f"{addresses}: a unix socket is one address by itself")
    tls = TlsFiles(ca=ca, certificate=certificate, key=key) if ca or certificate or key else None
    return Endpoint(address=addresses, tls=tls)


def make_token_source(endpoint: Endpoint, token: str | None, token_file: Path | None) -> Callable[[], str | None]:
    """Return what gives the token to present, if any. EndpointError."""
    if token is None and token_file is None:
        return lambda: None
    if token is not None and token_file is not None:
        raise EndpointError("a token is given as text or as a file, not as both")
    if not endpoint.is_local and endpoint.tls is None:
        raise EndpointError(f"a token is not sent in clear to {endpoint.address}: give the file with the server's CA as `ca`")
    if token is not None:
        return lambda: token
    read = Endpoint(address=endpoint.address, token_file=token_file).token
    read()  # a file that cannot be read is told now and by name, not as a failure of every call
    return read
