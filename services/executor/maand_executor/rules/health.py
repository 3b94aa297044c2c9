"""The manifest's probes: a TCP connection, an HTTP status, a command on the worker. Each has a limit of its own, whatever hangs.

HTTP is spoken over a plain socket: one GET, one status line. HTTPS trusts the bucket's CA and checks the worker's address.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from maand_executor.rules.facts import HttpProbe, Probe, SshProbe, TcpProbe, Worker
from maand_executor.rules.output_lines import OutputTail
from maand_wire.plain_text import clean_message

STATUS_LINE_LIMIT = 8_192
COMMAND_SHOWN = 60
"""Characters of a command that name its probe."""

OnOutput = Callable[[str, bytes], None]
RunProbeCommand = Callable[[str, timedelta, OnOutput], Awaitable[int]]
"""Runs a command on the worker that is probed, hands its output over as it comes, and returns its exit code; raises when the
worker cannot be reached."""


async def run_no_command(*_: object) -> int:
    """There is no command among the probes."""
    return 0


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What one probe saw on one worker. `problem` empty = healthy. `output` is the end of what its command said, not masked."""

    worker: str
    probe: Probe
    problem: str = ""
    output: str = field(default="", repr=False)

    @property
    def healthy(self) -> bool:
        """Whether it passed."""
        return not self.problem


@dataclass(frozen=True, kw_only=True)
class Prober:
    """Carries out probes of one worker. `run_command` is the way onto it, `tls` what HTTPS trusts."""

    worker: Worker
    run_command: RunProbeCommand = run_no_command
    tls: ssl.SSLContext | None = None

    async def probe(self, probe: Probe, limit: timedelta) -> ProbeResult:
        """Carry out one probe. Never raises for what it finds."""
        output = OutputTail()
        try:
            async with asyncio.timeout(limit.total_seconds()):
                problem = await self._look(probe, limit, output.feed)
        except TimeoutError:
            problem = f"no answer within {round(limit.total_seconds(), 2):g} s"
        except Exception as error:  # noqa: BLE001 - whatever keeps a probe from passing is its finding
            problem = why_not_probed(error)
        if not problem:
            return ProbeResult(worker=self.worker.name, probe=probe)
        return ProbeResult(
            worker=self.worker.name, probe=probe, problem=f"{describe_probe(probe)}: {problem}", output=output.text()
        )

    async def _look(self, probe: Probe, limit: timedelta, on_output: OnOutput) -> str:
        """Return what is wrong; empty = nothing."""
        host = self.worker.name
        match probe:
            case TcpProbe():
                await close_connection(await open_connection(host, probe.port, None))
                return ""
            case HttpProbe():
                status = await http_status(host, probe, self.tls if probe.scheme == "https" else None)
                return "" if status == probe.expect_status else f"answered {status}, not {probe.expect_status}"
            case SshProbe():
                code = await self.run_command(probe.command, limit, on_output)
                return f"exit code {code}" if code else ""


def describe_probe(probe: Probe) -> str:
    """Name a probe for people."""
    match probe:
        case TcpProbe():
            return f"tcp {probe.port}"
        case HttpProbe():
            return f"{probe.scheme} {probe.port}{probe.path}"
        case SshProbe():
            return f"ssh `{shorten_command(probe.command)}`"


def shorten_command(command: str) -> str:
    """Return the beginning of the first line of a command that is long."""
    first, _, rest = command.strip().partition("\n")
    return first if len(first) <= COMMAND_SHOWN and not rest else f"{first[:COMMAND_SHOWN].rstrip()} …"


def why_not_probed(error: Exception) -> str:
    """Say in a few words why a probe could not be carried out."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return clean_message(str(error)) or type(error).__name__


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
