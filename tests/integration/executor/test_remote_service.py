"""RemoteService through a real gRPC server: a hook reaches the workers of its own job, and nobody else."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from maand_contracts.executor.v1 import remote_pb2, remote_pb2_grpc
from maand_executor.hooks.live_invocations import LiveInvocation, LiveInvocations
from maand_executor.rpc.errors import STATUS_BY_ERROR
from maand_executor.rpc.remote import RemoteServicer
from maand_executor.rules.facts import AllocationCertificate, BucketConfig, Certificates, Worker
from maand_wire.channels import OPTIONS, bearer_header
from maand_wire.errors import ErrorBoundary, RemoteError, remote_errors
from maand_wire.servers import make_server
from tests.integration.executor.ssh_support import BUCKET, fact, remote_of
from tests.testbed.sshd import SshTestBed

TOKEN = "mh_token-of-the-hook"


@dataclass
class Client:
    """Calls as the hook does."""

    stub: Any
    token: str = TOKEN

    async def ssh(self, worker: str, command: str, **fields: Any) -> remote_pb2.RunSshCommandResponse:
        request = remote_pb2.RunSshCommandRequest(worker=worker, command=command, **fields)
        with remote_errors():
            response: remote_pb2.RunSshCommandResponse = await self.stub.RunSshCommand(
                request, metadata=[bearer_header(self.token)]
            )
            return response

    async def http(self, url: str, method: str = "GET", **fields: Any) -> remote_pb2.SendHttpRequestResponse:
        request = remote_pb2.SendHttpRequestRequest(method=method, url=url, **fields)
        with remote_errors():
            response: remote_pb2.SendHttpRequestResponse = await self.stub.SendHttpRequest(
                request, metadata=[bearer_header(self.token)]
            )
            return response


def invocation(workers: tuple[Worker, ...], remote: Any, **fields: Any) -> LiveInvocation:
    given: dict[str, Any] = {
        "invocation_id": "i",
        "token": TOKEN,
        "bucket_id": BUCKET,
        "run_id": "r",
        "job": "api",
        "allocation_id": "a-1",
        "worker": workers[0].name if workers else "",
        "hook": "hook_x",
        "event": "cli",
        "workers": workers,
        "remote": remote,
        "config": BucketConfig(bucket_id=BUCKET),
        "certificates": Certificates(),
    }
    return LiveInvocation(**{**given, **fields})


@asynccontextmanager
async def serving(*hooks: LiveInvocation) -> AsyncIterator[Client]:
    live = LiveInvocations()
    for hook in hooks:
        live.add(hook)
    server = make_server([ErrorBoundary(STATUS_BY_ERROR)])
    remote_pb2_grpc.add_RemoteServiceServicer_to_server(RemoteServicer(live), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        yield Client(stub=remote_pb2_grpc.RemoteServiceStub(channel))
    await server.stop(None)


# Commands -------------------------------------------------------------------------------------------------------------------


async def test_a_command_runs_as_the_bucket_says_and_its_failure_is_an_answer(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    async with remote_of(test_bed) as remote, serving(invocation((fact(worker),), remote)) as hook:
        answer = await hook.ssh(worker.host, "id -un; cat; printf '\\377' >&2; exit 3", stdin=b"input")

    assert (answer.exit_code, answer.stdout, answer.stderr) == (3, "root\ninput", "\ufffd")
    assert not answer.timed_out
    assert 0 < answer.duration_seconds < 10


async def test_a_command_that_takes_too_long_is_ended_and_says_so(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    async with remote_of(test_bed) as remote, serving(invocation((fact(worker),), remote)) as hook:
        answer = await hook.ssh(worker.host, "echo begun; sleep 4321", timeout_seconds=1)

    assert (answer.exit_code, answer.stdout, answer.timed_out) == (124, "begun\n", True)
    assert not [line for line in worker.processes() if "4321" in line]


async def test_output_is_capped_at_four_mebibytes(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    async with remote_of(test_bed) as remote, serving(invocation((fact(worker),), remote)) as hook:
        answer = await hook.ssh(worker.host, "head -c 5000000 /dev/zero | tr '\\0' x")

    assert (len(answer.stdout), answer.truncated, answer.exit_code) == (4 * 1024 * 1024, True, 0)


async def test_a_hook_that_gives_up_its_call_ends_the_command(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    async with remote_of(test_bed) as remote, serving(invocation((fact(worker),), remote)) as hook:
        calling = asyncio.create_task(hook.ssh(worker.host, "sleep 4321"))
        while not any("4321" in line for line in worker.processes()):  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.02)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        await asyncio.to_thread(worker.wait_until_gone, "4321")


async def test_an_unreachable_worker_is_unavailable(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    async with remote_of(test_bed) as remote, serving(invocation((fact(worker),), remote)) as hook:
        with worker.cut_off("reset"), pytest.raises(RemoteError) as refused:
            await hook.ssh(worker.host, "true")

    assert (refused.value.status, refused.value.code) == (grpc.StatusCode.UNAVAILABLE, "worker_unreachable")
    assert "maand worker ping" in refused.value.help


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"worker": "10.9.9.9"}, grpc.StatusCode.PERMISSION_DENIED, "permission_denied"),
        ({"command": "  "}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument"),
        ({"command": "a\0b"}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument"),
        ({"command": "x" * (1024 * 1024 + 1)}, grpc.StatusCode.INVALID_ARGUMENT, "limit_exceeded"),
        ({"timeout_seconds": 3601}, grpc.StatusCode.INVALID_ARGUMENT, "limit_exceeded"),
    ],
)
async def test_a_command_that_may_not_be_is_refused_before_anything_is_contacted(
    fields: dict[str, Any], status: grpc.StatusCode, code: str
) -> None:
    async with serving(invocation((Worker(name="10.0.0.5"),), None)) as hook:
        with pytest.raises(RemoteError) as refused:
            await hook.ssh(**{"worker": "10.0.0.5", "command": "true", **fields})

    assert (refused.value.status, refused.value.code) == (status, code)


async def test_only_a_live_hook_may_call() -> None:
    async with serving() as nobody:
        for call in (nobody.ssh("10.0.0.5", "true"), nobody.http("http://10.0.0.5/")):
            with pytest.raises(RemoteError) as refused:
                await call
            assert (refused.value.status, refused.value.code) == (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")


# HTTP -----------------------------------------------------------------------------------------------------------------------

HERE = "127.0.0.1"


@asynccontextmanager
async def web_server(answers: dict[str, bytes], tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer each path with given bytes, then hang up; give the port and the requests heard. `hang` answers nothing."""
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
        heard.append(head + await reader.readexactly(length))
        answer = answers[head.split(b" ")[1].decode()]
        if answer == b"hang":
            await reader.read()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, HERE, 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], heard


def reply(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def web_hook(**fields: Any) -> LiveInvocation:
    return invocation((Worker(name=HERE),), None, **fields)


async def test_a_request_reaches_the_worker_and_its_answer_comes_back() -> None:
    async with (
        web_server({"/x?y": reply(b"\xff\x00", "418 Teapot", "X-A: 1", "X-A: 2")}) as (port, heard),
        serving(web_hook()) as hook,
    ):
        headers = [remote_pb2.HttpHeader(name="X-B", value="b"), remote_pb2.HttpHeader(name="Connection", value="keep-alive")]
        answer = await hook.http(f"http://{HERE}:{port}/x?y", "put", headers=headers, body=b"body")

    assert (answer.status_code, answer.body, answer.truncated) == (418, b"\xff\x00", False)
    assert [header.value for header in answer.headers if header.name.lower() == "x-a"] == ["1", "2"]
    assert heard[0].startswith(b"PUT /x?y HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"X-B: b" in heard[0]
    assert b"keep-alive" not in heard[0]
    assert heard[0].endswith(b"\r\n\r\nbody")


async def test_chunked_answers_and_answers_that_end_with_the_connection_are_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    endless = b"HTTP/1.0 200 OK\r\n\r\nuntil the end"
    async with web_server({"/c": chunked, "/e": endless}) as (port, _), serving(web_hook()) as hook:
        assert (await hook.http(f"http://{HERE}:{port}/c")).body == b"abcde"
        assert (await hook.http(f"http://{HERE}:{port}/e")).body == b"until the end"


async def test_a_body_is_cut_at_four_mebibytes() -> None:
    async with web_server({"/": reply(b"x" * 5_000_000)}) as (port, _), serving(web_hook()) as hook:
        answer = await hook.http(f"http://{HERE}:{port}/")

    assert (len(answer.body), answer.truncated) == (4 * 1024 * 1024, True)


async def test_redirects_are_followed_five_times_and_never_away() -> None:
    answers = {f"/{number}": reply(b"", "302 Found", f"Location: /{number + 1}") for number in range(7)}
    answers["/2"] = reply(b"there")
    answers["/away"] = reply(b"", "302 Found", "Location: http://127.0.0.2/")
    async with web_server(answers) as (port, _), serving(web_hook()) as hook:
        assert (await hook.http(f"http://{HERE}:{port}/0")).body == b"there"
        del answers["/2"]
        answers["/2"] = reply(b"", "302 Found", "Location: /3")
        answers["/7"] = reply(b"too far")
        with pytest.raises(RemoteError, match="more than 5 redirects"):
            await hook.http(f"http://{HERE}:{port}/0")
        assert (await hook.http(f"http://{HERE}:{port}/2")).body == b"too far"
        with pytest.raises(RemoteError) as refused:
            await hook.http(f"http://{HERE}:{port}/away")

    assert refused.value.status is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (b"hang", grpc.StatusCode.DEADLINE_EXCEEDED, "http_timed_out"),
        (b"SSH-2.0-OpenSSH\r\n", grpc.StatusCode.FAILED_PRECONDITION, "http_request_failed"),
        (b"", grpc.StatusCode.FAILED_PRECONDITION, "http_request_failed"),
    ],
)
async def test_what_is_no_answer_is_an_error(answer: bytes, status: grpc.StatusCode, code: str) -> None:
    async with web_server({"/": answer}) as (port, _), serving(web_hook()) as hook:
        with pytest.raises(RemoteError) as failed:
            await hook.http(f"http://{HERE}:{port}/", timeout_seconds=1)

    assert (failed.value.status, failed.value.code) == (status, code)


@pytest.mark.parametrize(
    ("url", "fields", "status", "code"),
    [
        ("http://127.0.0.1:1/", {}, grpc.StatusCode.UNAVAILABLE, "worker_unreachable"),
        ("http://127.0.0.2:1/", {}, grpc.StatusCode.PERMISSION_DENIED, "permission_denied"),
        ("http://localhost/", {}, grpc.StatusCode.PERMISSION_DENIED, "permission_denied"),
        ("gopher://127.0.0.1/", {}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument"),
        ("http://127.0.0.1/", {"body": b"x" * (2 * 1024 * 1024 + 1)}, grpc.StatusCode.INVALID_ARGUMENT, "limit_exceeded"),
        ("http://127.0.0.1/", {"timeout_seconds": 121}, grpc.StatusCode.INVALID_ARGUMENT, "limit_exceeded"),
        (
            "http://127.0.0.1/",
            {"headers": [remote_pb2.HttpHeader(name="X-A", value="b\r\nX-Evil: 1")]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_argument",
        ),
    ],
)
async def test_a_request_that_may_not_be_is_refused(url: str, fields: dict[str, Any], status: grpc.StatusCode, code: str) -> None:
    async with web_server({"/": reply()}) as (port, _), serving(web_hook()) as hook:
        with pytest.raises(RemoteError) as refused:
            await hook.http(url if "headers" not in fields else f"http://{HERE}:{port}/", **fields)

    assert (refused.value.status, refused.value.code) == (status, code)


# TLS ------------------------------------------------------------------------------------------------------------------------


class Authority:
    """A bucket's CA."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "maand bucket CA")])
        self.certificate = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None))

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def leaf(self, *names: x509.GeneralName) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
        certificate = self._sign(subject, key.public_key(), x509.SubjectAlternativeName(names))
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        return builder.add_extension(extension, critical=True).sign(self._key, hashes.SHA256())

    def server_context(self, tmp_path: Path, *names: x509.GeneralName, wants_client: bool = False) -> ssl.SSLContext:
        certificate, key = self.leaf(*names)
        (tmp_path / "server.pem").write_text(key + certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.pem)
        return context


LOCAL = x509.IPAddress(ip_address(HERE))


@pytest.fixture
def authority() -> Authority:
    return Authority()


def trusting_hook(authority: Authority, *leaves: AllocationCertificate) -> LiveInvocation:
    return web_hook(certificates=Certificates(ca_certificate_pem=authority.pem, leaves=leaves))


async def test_https_trusts_the_buckets_authority_and_checks_the_address(authority: Authority, tmp_path: Path) -> None:
    context = authority.server_context(tmp_path, LOCAL)
    async with web_server({"/": reply(b"safe")}, context) as (port, _):
        async with serving(trusting_hook(authority)) as hook:
            assert (await hook.http(f"https://{HERE}:{port}/")).body == b"safe"
        async with serving(trusting_hook(Authority())) as stranger:
            with pytest.raises(RemoteError, match="TLS failed") as refused:
                await stranger.http(f"https://{HERE}:{port}/")
            insecure = remote_pb2.TlsOptions(insecure_skip_verify=True)
            assert (await stranger.http(f"https://{HERE}:{port}/", tls=insecure)).body == b"safe"

    assert refused.value.status is grpc.StatusCode.FAILED_PRECONDITION


async def test_another_name_may_be_verified_instead_of_the_address(authority: Authority, tmp_path: Path) -> None:
    context = authority.server_context(tmp_path, x509.DNSName("api.internal"))
    async with web_server({"/": reply(b"safe")}, context) as (port, _), serving(trusting_hook(authority)) as hook:
        with pytest.raises(RemoteError, match="TLS failed"):
            await hook.http(f"https://{HERE}:{port}/")
        named = remote_pb2.TlsOptions(server_name="api.internal")
        assert (await hook.http(f"https://{HERE}:{port}/", tls=named)).body == b"safe"


async def test_a_certificate_of_the_allocation_is_presented(authority: Authority, tmp_path: Path) -> None:
    context = authority.server_context(tmp_path, LOCAL, wants_client=True)
    certificate, key = authority.leaf(LOCAL)
    leaf = AllocationCertificate(allocation_id="a-1", name="tls", certificate_pem=certificate, private_key_pem=key)
    foreign = replace(leaf, allocation_id="a-2", name="other")
    async with web_server({"/": reply(b"known")}, context) as (port, _), serving(trusting_hook(authority, leaf, foreign)) as hook:
        presenting = remote_pb2.TlsOptions(client_certificate="tls")
        assert (await hook.http(f"https://{HERE}:{port}/", tls=presenting)).body == b"known"
        with pytest.raises(RemoteError, match='no certificate "other"; it has: tls'):
            await hook.http(f"https://{HERE}:{port}/", tls=remote_pb2.TlsOptions(client_certificate="other"))
        with pytest.raises(RemoteError):
            await hook.http(f"https://{HERE}:{port}/")
