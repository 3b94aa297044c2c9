"""Who may call the executor, where a hook's HTTP request may go, and which status an error becomes."""

import inspect

import grpc
import pytest

from maand_executor import errors as executor_errors
from maand_executor.hooks.live_invocations import LiveInvocation, LiveInvocations
from maand_executor.rpc import errors as rpc_errors
from maand_executor.rpc.callers import identify_hook
from maand_executor.rpc.errors import STATUS_BY_ERROR, IdentityMismatch, InvalidCall, Unauthenticated, WorkerNotAllowed
from maand_executor.rpc.http_rules import (
    HttpRequest,
    Target,
    check_method,
    own_headers_removed,
    parse_target,
    redirect_request,
)
from maand_executor.rules.facts import BucketConfig, Certificates
from maand_executor.ssh import errors as ssh_errors

HOSTS = ["10.0.0.5", "fd00::5", "db.internal"]


def invocation(token: str = "mh_secret") -> LiveInvocation:
    return LiveInvocation(
        invocation_id="i",
        token=token,
        bucket_id="b",
        run_id="r",
        job="api",
        allocation_id="a-1",
        worker="10.0.0.5",
        hook="hook_x",
        event="cli",
        workers=(),
        remote=None,
        config=BucketConfig(bucket_id="b"),
        certificates=Certificates(),
    )


@pytest.fixture
def live() -> LiveInvocations:
    live = LiveInvocations()
    live.add(invocation())
    return live


# Who calls ------------------------------------------------------------------------------------------------------------------


def test_a_live_hook_is_known_by_its_token(live: LiveInvocations) -> None:
    metadata = [("authorization", "Bearer mh_secret"), ("maand-claimed-hook", "hook_x"), ("maand-claimed-event", "")]

    assert identify_hook(live, metadata).job == "api"


@pytest.mark.parametrize("authorization", ["Bearer mh_other", "Bearer ", "mh_secret", "Basic mh_secret", ""])
def test_anybody_else_is_unauthenticated(live: LiveInvocations, authorization: str) -> None:
    with pytest.raises(Unauthenticated):
        identify_hook(live, [("authorization", authorization)])


def test_an_ended_hook_is_unauthenticated(live: LiveInvocations) -> None:
    live.remove("mh_secret")

    with pytest.raises(Unauthenticated):
        identify_hook(live, [("authorization", "Bearer mh_secret")])
    with pytest.raises(Unauthenticated):
        identify_hook(live, None)


@pytest.mark.parametrize("claim", ["maand-claimed-allocation", "maand-claimed-hook", "maand-claimed-event"])
def test_a_claim_that_disagrees_with_the_token_is_a_mismatch(live: LiveInvocations, claim: str) -> None:
    with pytest.raises(IdentityMismatch):
        identify_hook(live, [("authorization", "Bearer mh_secret"), (claim, "another")])


# Where a request may go -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://10.0.0.5", Target(scheme="http", host="10.0.0.5", port=80, path="/")),
        ("https://10.0.0.5:8443/a/b?c=d#e", Target(scheme="https", host="10.0.0.5", port=8443, path="/a/b?c=d")),
        ("http://[fd00:0::5]:1/", Target(scheme="http", host="fd00::5", port=1, path="/")),
        ("http://DB.internal/x", Target(scheme="http", host="db.internal", port=80, path="/x")),
    ],
)
def test_an_address_of_a_worker_of_the_job_is_allowed_in_any_spelling(url: str, target: Target) -> None:
    assert parse_target(url, HOSTS) == target


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.6/",
        "http://127.0.0.1/",
        "http://localhost/",
        "http://167772165/",  # 10.0.0.5 as one number, as some resolvers read it
        "http://0x0a000005/",
        "http://10.0.0.5.evil.example/",
        "http://db.internal./",
        "http://[::ffff:10.0.0.5]/",
    ],
)
def test_any_other_address_is_not_allowed(url: str) -> None:
    with pytest.raises(WorkerNotAllowed):
        parse_target(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://10.0.0.5/",
        "file:///etc/passwd",
        "//10.0.0.5/",
        "10.0.0.5",
        "http://",
        "http://user@10.0.0.5/",
        "http://10.0.0.5@evil.example/",
        "http://10.0.0.5:99999/",
        "http://10.0.0.5:x/",
        "http://10.0.0.5/a b",
        "http://10.0.0.5/\r\nHost: evil",
        "http://[fd00::5/",
    ],
)
def test_a_url_of_another_shape_is_invalid(url: str) -> None:
    with pytest.raises(InvalidCall):
        parse_target(url, HOSTS)


@pytest.mark.parametrize("method", ["", "GET /", "G\nET", "ünknown", "groß", "GET\n"])
def test_a_method_is_a_word(method: str) -> None:
    with pytest.raises(InvalidCall):
        check_method(method)


@pytest.mark.parametrize("method", ["CONNECT", "connect", "Connect"])
def test_a_tunnel_is_not_asked_for(method: str) -> None:
    with pytest.raises(InvalidCall, match="tunnel"):
        check_method(method)


@pytest.mark.parametrize("method", ["trace", "OPTIONS", "propfind", "m-search"])
def test_any_other_method_is_passed_on(method: str) -> None:
    assert check_method(method) == method.upper()


@pytest.mark.parametrize("location", ["http://[::1", "http://10.0.0.1:99999/", "ftp://10.0.0.1/", "/a b", "/ü"])
def test_a_redirect_to_nowhere_is_refused(location: str) -> None:
    with pytest.raises(InvalidCall):
        redirect_request(request(), 302, location, HOSTS)


def test_methods_are_upper_case_and_headers_of_the_connection_are_ours() -> None:
    headers = [("X-A", "1"), ("Connection", "close"), ("content-LENGTH", "9"), ("Transfer-Encoding", "chunked"), ("Host", "h")]

    assert check_method("patch") == "PATCH"
    assert own_headers_removed(headers) == [("X-A", "1"), ("Host", "h")]


def request(method: str = "POST") -> HttpRequest:
    return HttpRequest(
        method=method,
        target=parse_target("http://10.0.0.5:8080/a/b?x", HOSTS),
        headers=[("Authorization", "Bearer s"), ("Content-Type", "text/plain"), ("X-A", "1")],
        body=b"body",
    )


@pytest.mark.parametrize(
    ("status", "method", "expected", "keeps_body"),
    [
        (301, "POST", "GET", False),
        (302, "POST", "GET", False),
        (302, "PUT", "PUT", True),
        (303, "PUT", "GET", False),
        (303, "HEAD", "HEAD", False),
        (307, "POST", "POST", True),
        (308, "POST", "POST", True),
    ],
)
def test_a_redirect_keeps_or_drops_method_and_body_as_browsers_do(
    status: int, method: str, expected: str, keeps_body: bool
) -> None:
    follow_up = redirect_request(request(method), status, "../c", HOSTS)

    assert (follow_up.method, follow_up.target.path, follow_up.body == b"body") == (expected, "/c", keeps_body)
    assert ("Authorization", "Bearer s") in follow_up.headers
    assert (("Content-Type", "text/plain") in follow_up.headers) is keeps_body


def test_a_redirect_to_another_worker_leaves_credentials_behind() -> None:
    follow_up = redirect_request(request(), 307, "http://[fd00::5]:8080/", HOSTS)

    assert follow_up.headers == [("Content-Type", "text/plain"), ("X-A", "1")]


@pytest.mark.parametrize("location", ["http://evil.example/", "//evil.example/", "https://127.0.0.1/"])
def test_a_redirect_away_from_the_job_is_refused(location: str) -> None:
    with pytest.raises(WorkerNotAllowed):
        redirect_request(request(), 302, location, HOSTS)


def test_the_host_header_names_a_port_only_when_it_must() -> None:
    assert parse_target("https://[fd00::5]/", HOSTS).authority == "[fd00::5]"
    assert parse_target("https://10.0.0.5:80/", HOSTS).authority == "10.0.0.5:80"


# Errors -----------------------------------------------------------------------------------------------------------------------


def every_error() -> list[type[Exception]]:
    modules = (executor_errors, rpc_errors, ssh_errors)
    kinds = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    return sorted((kind for kind in kinds if issubclass(kind, executor_errors.ExecutorError)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_status(kind: type[Exception]) -> None:
    assert any(parent in STATUS_BY_ERROR for parent in kind.__mro__)


def test_unavailable_is_promised_only_when_nothing_was_started() -> None:
    assert STATUS_BY_ERROR[ssh_errors.WorkerUnreachable] is grpc.StatusCode.UNAVAILABLE
    assert STATUS_BY_ERROR[ssh_errors.ConnectionLost] is not grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("kind", [kind for kind in every_error() if issubclass(kind, rpc_errors.RpcError)])
def test_every_rpc_error_has_a_code_and_says_in_its_docstring_what_to_do(kind: type[rpc_errors.RpcError]) -> None:
    assert kind.code
    assert (kind.__doc__ or "").count(".") >= 1
