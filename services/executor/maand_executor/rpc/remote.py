"""RemoteService: a hook runs commands on, and sends HTTP requests to, the workers of its own job."""

from datetime import timedelta
from typing import Any

from maand_contracts.executor.v1 import remote_pb2, remote_pb2_grpc
from maand_executor.hooks.live_invocations import LiveInvocation, LiveInvocations
from maand_executor.rpc.callers import identify_hook, metadata_of
from maand_executor.rpc.errors import InvalidCall, LimitExceeded, WorkerNotAllowed
from maand_executor.rpc.http_proxy import TlsManners, proxy_request
from maand_executor.rpc.http_rules import HttpRequest, check_method, own_headers_removed, parse_target
from maand_executor.rules.facts import Worker
from maand_executor.rules.remote_commands import RemoteCommand, RemoteResult
from maand_executor.ssh.remote import Remote

SSH_SECONDS, MOST_SSH_SECONDS = 300, 3_600
HTTP_SECONDS, MOST_HTTP_SECONDS = 30, 120
COMMAND_LIMIT = 1024 * 1024
REQUEST_BODY_LIMIT = 2 * 1024 * 1024


class RemoteServicer(remote_pb2_grpc.RemoteServiceServicer):
    """Answers for live hooks only."""

    def __init__(self, live: LiveInvocations) -> None:
        self._live = live

    async def RunSshCommand(self, request: remote_pb2.RunSshCommandRequest, context: Any) -> remote_pb2.RunSshCommandResponse:
        """Run a command line on a worker of the hook's job."""
        hook = identify_hook(self._live, metadata_of(context))
        worker = find_own_worker(hook, request.worker)
        command = make_remote_command(hook, request)
        remote: Remote = hook.remote
        return to_ssh_response(await remote.run(worker, command))

    async def SendHttpRequest(
        self, request: remote_pb2.SendHttpRequestRequest, context: Any
    ) -> remote_pb2.SendHttpRequestResponse:
        """Send an HTTP request to a worker of the hook's job."""
        hook = identify_hook(self._live, metadata_of(context))
        hosts = [worker.name for worker in hook.workers]
        answer = await proxy_request(
            make_http_request(request, hosts),
            allowed_hosts=hosts,
            certificates=hook.certificates,
            allocation_id=hook.allocation_id,
            tls=to_tls_manners(request.tls),
            limit=time_limit(request.timeout_seconds, default=HTTP_SECONDS, most=MOST_HTTP_SECONDS),
        )
        return remote_pb2.SendHttpRequestResponse(
            status_code=answer.status,
            headers=[remote_pb2.HttpHeader(name=name, value=value) for name, value in answer.headers],
            body=answer.body,
            truncated=answer.truncated,
        )


def find_own_worker(hook: LiveInvocation, host: str) -> Worker:
    """Return a worker of the hook's job. Raises `WorkerNotAllowed`."""
    for worker in hook.workers:
        if worker.name == host:
            return worker
    raise WorkerNotAllowed(f'"{host}" is not a worker of the job {hook.job}')


def make_remote_command(hook: LiveInvocation, request: remote_pb2.RunSshCommandRequest) -> RemoteCommand:
    """Return the command as the bucket runs commands. Raises `InvalidCall`."""
    if not request.command.strip():
        raise InvalidCall("the command is empty")
    if "\0" in request.command:
        raise InvalidCall("the command holds a NUL character")
    if len(request.command.encode()) > COMMAND_LIMIT:
        raise LimitExceeded("the command is longer than 1 MiB; send long input as stdin")
    return RemoteCommand(
        script=request.command,
        sudo=hook.config.use_sudo,
        stdin=request.stdin,
        timeout=time_limit(request.timeout_seconds, default=SSH_SECONDS, most=MOST_SSH_SECONDS),
        check_host=request.check_host,
    )


def to_ssh_response(result: RemoteResult) -> remote_pb2.RunSshCommandResponse:
    """Translate a result."""
    return remote_pb2.RunSshCommandResponse(
        exit_code=result.exit_code,
        stdout=result.stdout.decode("utf-8", "replace"),
        stderr=result.stderr.decode("utf-8", "replace"),
        timed_out=result.timed_out,
        truncated=result.truncated,
        duration_seconds=result.duration.total_seconds(),
    )


def make_http_request(request: remote_pb2.SendHttpRequestRequest, hosts: list[str]) -> HttpRequest:
    """Return the request to send. Raises `InvalidCall`, `WorkerNotAllowed`."""
    if len(request.body) > REQUEST_BODY_LIMIT:
        raise LimitExceeded("the body is larger than 2 MiB")
    return HttpRequest(
        method=check_method(request.method),
        target=parse_target(request.url, hosts),
        headers=own_headers_removed([(header.name, header.value) for header in request.headers]),
        body=request.body,
    )


def to_tls_manners(tls: remote_pb2.TlsOptions) -> TlsManners:
    """Translate TLS manners; unset ones are the defaults."""
    return TlsManners(client_certificate=tls.client_certificate, server_name=tls.server_name, insecure=tls.insecure_skip_verify)


def time_limit(given: int, *, default: int, most: int) -> timedelta:
    """Return a time limit. Raises `LimitExceeded`."""
    if given > most:
        raise LimitExceeded(f"timeout_seconds is {given}, at most {most} are allowed")
    return timedelta(seconds=given or default)
