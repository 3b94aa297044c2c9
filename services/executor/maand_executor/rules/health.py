"""The manifest's probes: a TCP connection, an HTTP status, a command on the worker. Each ends within its timeout, whatever hangs.

HTTP is spoken over a plain socket: one GET, one status line. HTTPS trusts the bucket's CA and checks the worker's address.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from maand_executor.rules.facts import HttpProbe, Probe, SshProbe, TcpProbe, Worker

STATUS_LINE_LIMIT = 8_192

RunProbeCommand = Callable[[Worker, str, timedelta], Awaitable[int]]
"""Runs a command on a worker and returns its exit code; raises when the worker cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What one probe saw on one worker. `problem` empty = healthy."""

    worker: str
    probe: Probe
    problem: str = ""

    @property
    def healthy(self) -> bool:
        """Whether it passed."""
        return not self.problem


@dataclass(frozen=True, kw_only=True)
class Prober:
    """Carries out probes. `run_command` is the way onto workers, `tls` what HTTPS trusts."""

    run_command: RunProbeCommand
    tls: ssl.SSLContext | None = None

    async def probe(self, worker: Worker, probe: Probe, timeout: timedelta) -> ProbeResult:  # noqa: ASYNC109 - a fact of the manifest
        """Carry out one probe. Never raises for what it finds."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                problem = await self._look(worker, probe, timeout)
        except TimeoutError:
            problem = f"{describe_probe(probe)} gave no answer within {timeout.total_seconds():g} s"
        except Exception as error:  # noqa: BLE001 - whatever keeps a probe from passing is its finding
            problem = f"{describe_probe(probe)}: {why_not_probed(error)}"
        return ProbeResult(worker=worker.name, probe=probe, problem=problem)

    async def _look(self, worker: Worker, probe: Probe, timeout: timedelta) -> str:  # noqa: ASYNC109 - a fact of the manifest
        match probe:
            case TcpProbe():
                await close_connection(await open_connection(worker.name, probe.port, None))
                return ""
            case HttpProbe():
                status = await http_status(worker.name, probe, self.tls if probe.scheme == "https" else None)
                return (
                    ""
                    if status == probe.expect_status
                    else f"{describe_probe(probe)} answered {status}, not {probe.expect_status}"
                )
            case SshProbe():
                code = await self.run_command(worker, probe.command, timeout)
                return f"{describe_probe(probe)} ended with exit code {code}" if code else ""


def describe_probe(probe: Probe) -> str:
    """Name a probe for people."""
    match probe:
        case TcpProbe():
            return f"tcp {probe.port}"
        case HttpProbe():
            return f"{probe.scheme} {probe.port}{probe.path}"
        case SshProbe():
            return f"ssh `{probe.command}`"


def why_not_probed(error: Exception) -> str:
    """Say in a few words why a probe could not be carried out."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def tls_context_of_ca(ca_certificate_pem: str) -> ssl.SSLContext | None:
    """Return what HTTPS probes trust: the bucket's CA and nothing else. None without a CA."""
    if not ca_certificate_pem:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca_certificate_pem)
    return context


async def open_connection(host: str, port: int, tls: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection."""
    return await asyncio.open_connection(host, port, ssl=tls, server_hostname=host if tls else None, limit=STATUS_LINE_LIMIT)


async def close_connection(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Close a connection, whatever the other side thinks of it."""
    _, writer = connection
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def http_status(host: str, probe: HttpProbe, tls: ssl.SSLContext | None) -> int:
    """Send one GET and return the status code."""
    connection = await open_connection(host, probe.port, tls)
    try:
        reader, writer = connection
        authority = f"[{host}]:{probe.port}" if ":" in host else f"{host}:{probe.port}"
        headers = (f"GET {probe.path} HTTP/1.1", f"Host: {authority}", "User-Agent: maand", "Accept: */*", "Connection: close")
        writer.write("".join(f"{line}\r\n" for line in (*headers, "")).encode())
        await writer.drain()
        version, _, rest = (await reader.readline()).decode("latin-1").partition(" ")
        if not version.startswith("HTTP/") or not rest[:3].isdigit():
            raise ValueError("the answer is not HTTP")
        return int(rest[:3])
    finally:
        connection[1].transport.abort()
