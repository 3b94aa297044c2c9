"""Routes that reach workers, through the executor that started the hook: a command over SSH, a request over HTTP."""

from collections.abc import Iterable

from maand_contracts.executor.v1 import remote_pb2
from maand_runtime_gateway.models import HttpCall, HttpResult, SshCommand, SshResult, Tls
from maand_runtime_gateway.upstream import Caller, Upstream


async def run_ssh(upstream: Upstream, caller: Caller, fields: SshCommand) -> SshResult:
    """Run a command; one that fails is an answer, not an error."""
    request = remote_pb2.RunSshCommandRequest(
        worker=fields.worker,
        command=fields.command,
        timeout_seconds=fields.timeout_seconds,
        stdin=fields.stdin.encode(),
        check_host=fields.check_host,
    )
    result = await upstream.call(upstream.remote.RunSshCommand, request, caller, own_timeout=fields.timeout_seconds)
    return SshResult(
        exit_code=result.exit_code,
        stdout=result.stdout,
        stderr=result.stderr,
        timed_out=result.timed_out,
        truncated=result.truncated,
        duration_ms=round(result.duration_seconds * 1000),
    )


async def send_http(upstream: Upstream, caller: Caller, fields: HttpCall) -> HttpResult:
    """Send a request; whatever the worker answers is an answer, not an error."""
    request = remote_pb2.SendHttpRequestRequest(
        method=fields.method.upper(),
        url=fields.url,
        headers=[remote_pb2.HttpHeader(name=name, value=value) for name, value in fields.headers.items()],
        body=fields.body.encode(),
        timeout_seconds=fields.timeout_seconds,
        tls=to_tls_options(fields.tls),
    )
    result = await upstream.call(upstream.remote.SendHttpRequest, request, caller, own_timeout=fields.timeout_seconds)
    return HttpResult(
        status_code=result.status_code,
        headers=join_repeated_headers(result.headers),
        body=result.body.decode(errors="replace"),
        truncated=result.truncated,
    )


def to_tls_options(tls: Tls | None) -> remote_pb2.TlsOptions | None:
    """Translate TLS manners."""
    return remote_pb2.TlsOptions(**tls.model_dump()) if tls else None


def join_repeated_headers(headers: Iterable[remote_pb2.HttpHeader]) -> dict[str, str]:
    """Return headers by lower-case name, repeated ones joined by commas as HTTP allows."""
    by_name: dict[str, str] = {}
    for header in headers:
        name = header.name.lower()
        by_name[name] = f"{by_name[name]}, {header.value}" if name in by_name else header.value
    return by_name
