"""Where a service is reached and as whom: one value for unix sockets and TLS, read from the environment by every part.

| Variable (X = CATALOG, EXECUTOR)         | Meaning                                                               |
|------------------------------------------|-----------------------------------------------------------------------|
| `MAAND_X_ADDRESS`                        | `unix:/path`, or `host:port[,host:port…]` (spread round robin)        |
| `MAAND_TLS_CA`                           | file with the CA that signed the servers' certificates                |
| `MAAND_TLS_CERTIFICATE`, `MAAND_TLS_KEY` | files of this part's own certificate                                  |
| `MAAND_API_TOKEN_FILE`                   | file with the API token to present                                    |
"""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""What may be bound and dialled in clear."""


class EndpointError(Exception):
    """An endpoint setting is missing or wrong. The message names the variable; set it, or unset it for the default."""

    code = "bad_endpoint"


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Files of one side's TLS identity. `ca` verifies the other side; certificate and key present this one."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Read the `MAAND_TLS_*` variables; None when none is set."""
        names = {"ca": "MAAND_TLS_CA", "certificate": "MAAND_TLS_CERTIFICATE", "key": "MAAND_TLS_KEY"}
        files = {field: Path(environment[name]) for field, name in names.items() if environment.get(name)}
        for field, path in files.items():
            if not path.is_file():
                raise EndpointError(f"{names[field]} names {path}, which is not a file")
        return cls(**files) if files else None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One service as a client sees it."""

    address: str
    tls: TlsFiles | None = None
    token_file: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a unix socket, whose permissions are the credential."""
        return self.address.startswith("unix:")

    @property
    def is_loopback(self) -> bool:
        """Whether it is one TCP address of this machine, where health and reflection may be asked in clear."""
        return self.address.rpartition(":")[0] in LOOPBACK_HOSTS

    @property
    def is_list(self) -> bool:
        """Whether it is several addresses, separated by commas, that are used in turn."""
        return not self.is_local and "," in self.address

    @property
    def server_name(self) -> str:
        """What the servers' certificates must carry: the host of the (first) address."""
        return self.address.partition(",")[0].rpartition(":")[0].strip("[]")

    def target(self) -> str:
        """Return the gRPC target name: several addresses become one list that gRPC balances over.

        Names in a list are looked up once, here. A process that lives long is better given one name that has several addresses:
        gRPC looks that up again whenever a connection is lost.
        """
        if not self.is_list:
            return self.address
        numbers = [_numeric(address) for address in self.address.split(",")]
        return ("ipv6:" if numbers[0].startswith("[") else "ipv4:") + ",".join(numbers)

    def token(self) -> str | None:
        """Read the API token, if one is to be presented. The file is read at every call, so that a rotated token is found."""
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise EndpointError(f"the API token cannot be read from {self.token_file}: {error.strerror}") from error

    @classmethod
    def from_environment(cls, service: str, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the endpoint of `CATALOG` or `EXECUTOR`."""
        name = f"MAAND_{service}_ADDRESS"
        if not environment.get(name):
            raise EndpointError(
                f"{name} is not set; it says where the {service.lower()} listens, for example unix:/run/maand.sock"
            )
        token_file = environment.get("MAAND_API_TOKEN_FILE")
        return cls(
            address=environment[name],
            tls=TlsFiles.from_environment(environment),
            token_file=Path(token_file) if token_file else None,
        )


def _numeric(address: str) -> str:
    """Return `host:port` with its host as a number. EndpointError for a name that nobody knows."""
    host, _, port = address.strip().rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        try:
            return f"{socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]}:{port}"
        except OSError as error:
            raise EndpointError(f"{address} is not known: {error.strerror}") from error
    return f"{host}:{port}"
