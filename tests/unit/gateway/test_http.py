"""What the gateway answers to requests, right and wrong, over real connections."""

import json

import pytest

from maand_contracts.catalog.v1 import kv_pb2
from maand_runtime_gateway.routes.table import PUBLIC_PATHS, ROUTES
from maand_wire.errors import RemoteError
from tests.contracts.hook_api.field_cases import FIELDS_OF
from tests.unit.gateway.conftest import ServedGateway
from tests.unit.gateway.raw_http import RawClient, call, request_bytes

PUT = {"namespace": "vars/job/api", "key": "k", "value": "v"}


@pytest.mark.parametrize(
    ("method", "path"), [*FIELDS_OF, ("GET", "/nothing"), ("POST", "/kv"), ("DELETE", "/"), ("GET", "/healthz/x")]
)
async def test_without_a_token_everything_but_public_routes_is_unauthenticated(
    gateway: ServedGateway, method: str, path: str
) -> None:
    answer = await gateway.call(method, path, caller=None, body=b"{broken")

    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", sorted(PUBLIC_PATHS))
async def test_public_routes_answer_without_a_token(gateway: ServedGateway, path: str) -> None:
    assert (await gateway.call("GET", path, caller=None)).status == 200


async def test_a_token_reaches_the_service_with_what_the_request_claims(gateway: ServedGateway) -> None:
    headers = {"X-ALLOCATION-ID": "api-1", "HOOK": "hook_setup", "EVENT": "pre_deploy", "maand-caller": "operator"}

    answer = await gateway.call("PUT", "/kv", fields=PUT, headers=headers)

    assert answer.status == 200
    seen = gateway.fakes.kv.seen.metadata[-1]
    assert seen["maand-caller"] == "hook"
    assert seen["maand-claimed-hook"] == "hook_setup"


@pytest.mark.parametrize("headers", [{"HOOK": "hook_other"}, {"EVENT": "cli"}, {"X-ALLOCATION-ID": "api-2"}, {"EVENT": "ä"}])
async def test_headers_that_disagree_with_the_token_are_refused(gateway: ServedGateway, headers: dict[str, str]) -> None:
    answer = await gateway.call("GET", "/demands", headers=headers)

    assert (answer.status, answer.code) == (403, "identity_mismatch")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed_json"),
        (b"[]", "malformed_json"),
        (b'"text"', "malformed_json"),
        (b"null", "malformed_json"),
        (b'{"namespace": "\xff"}', "malformed_json"),
        (b'{"namespace": "a", "key": "\\ud800", "value": ""}', "malformed_json"),
        (b"{} {}", "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b"{}", "invalid_argument"),
        (b"", "invalid_argument"),
    ],
)
async def test_a_body_that_is_no_json_object_is_a_bad_request(gateway: ServedGateway, body: bytes, code: str) -> None:
    answer = await gateway.call("PUT", "/kv", body=body, headers={"Content-Type": "application/json"})

    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/kv", b'{"namespace": "vars/job/api", "key": "k", "value": "v", "if_version": 1, "if_version": 2}', "if_version"),
        ("/http", b'{"method": "GET", "url": "http://10.0.0.1/", "headers": {"a": "1", "a": "2"}}', "a"),
    ],
)
async def test_a_field_given_twice_has_no_single_meaning(gateway: ServedGateway, path: str, body: bytes, name: str) -> None:
    answer = await gateway.call("PUT" if path == "/kv" else "POST", path, body=body)

    assert (answer.status, answer.code) == (400, "invalid_argument")
    assert answer.message == f"`{name}` is given twice; give each field once"


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/semaphore/acquire", {"name": "n", "capacity": 0}, "`capacity` must be at least 1"),
        ("/semaphore/acquire", {"name": "n", "timeout_seconds": 3601}, "`timeout_seconds` must be at most 3600"),
        ("/ssh", {"worker": "", "command": "true"}, "`worker` must not be empty"),
        ("/http", {"method": "G E", "url": "http://10.0.0.1/"}, "`method` must be 1 to 16 letters"),
        ("/http", {"method": "Connect", "url": "http://10.0.0.1/"}, "`method` asks for a tunnel, which a hook cannot use"),
        ("/http", {"method": "GET", "url": "x" * 8193}, "`url` must have at most 8192 characters"),
        ("/http", {"method": "GET", "url": "http://10.0.0.1/", "headers": []}, "`headers` must be an object"),
        ("/http", {"method": "GET", "url": "http://10.0.0.1/", "tls": 1}, "`tls` must be an object"),
    ],
)
async def test_a_field_out_of_range_is_told_its_range_in_words(
    gateway: ServedGateway, path: str, fields: dict[str, object], message: str
) -> None:
    assert (await gateway.call("POST", path, fields=fields)).message == message


async def test_what_was_sent_is_never_repeated_in_an_error(gateway: ServedGateway) -> None:
    answer = await gateway.call("PUT", "/kv/secret", fields={"namespace": 1, "key": "k", "value": {"hidden": "hunter2"}})

    assert answer.status == 400
    assert b"hunter2" not in answer.body
    assert answer.json()["error"]["details"] == {"fields": {"namespace": "must be a string", "value": "must be a string"}}


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
async def test_a_body_of_another_type_is_unsupported(gateway: ServedGateway, media_type: str) -> None:
    answer = await gateway.call("PUT", "/kv", body=json.dumps(PUT).encode(), headers={"Content-Type": media_type})

    assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"]
)
async def test_a_body_of_json_by_any_spelling_is_read(gateway: ServedGateway, media_type: str) -> None:
    answer = await gateway.call("PUT", "/kv", body=json.dumps(PUT).encode(), headers={"Content-Type": media_type})

    assert answer.status == 200


async def test_a_body_announced_too_large_is_refused_before_it_is_read(gateway: ServedGateway) -> None:
    async with await RawClient.open(gateway.address) as client:
        headers = {"Authorization": f"Bearer {gateway.tokens['api']}", "Content-Length": str(2 * 1024 * 1024 + 1)}
        await client.send(request_bytes("PUT", "/kv", headers=headers))

        answer = await client.answer()

    assert (answer.status, answer.code) == (413, "body_too_large")


async def test_a_chunked_body_is_refused_at_the_limit_and_the_connection_goes_on(gateway: ServedGateway) -> None:
    headers = {"Authorization": f"Bearer {gateway.tokens['api']}", "Transfer-Encoding": "chunked"}
    chunk = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
    async with await RawClient.open(gateway.address) as client:
        await client.send(request_bytes("PUT", "/kv", headers=headers) + chunk * 33 + b"0\r\n\r\n")
        answer = await client.answer()
        await client.send(request_bytes("GET", "/demands", headers={"Authorization": headers["Authorization"]}))
        following = await client.answer()

    assert (answer.status, answer.code) == (413, "body_too_large")
    assert following.status == 200


async def test_a_chunked_body_within_the_limit_is_read(gateway: ServedGateway) -> None:
    body = json.dumps(PUT).encode()
    headers = {"Authorization": f"Bearer {gateway.tokens['api']}", "Transfer-Encoding": "chunked"}
    async with await RawClient.open(gateway.address) as client:
        await client.send(request_bytes("PUT", "/kv", headers=headers))
        await client.send(b"5\r\n" + body[:5] + b"\r\n")
        await client.send(b"%x\r\n" % len(body[5:]) + body[5:] + b"\r\n0\r\n\r\n")

        assert (await client.answer()).status == 200


async def test_an_unknown_route_is_not_found_and_an_unknown_method_is_told_the_known_ones(gateway: ServedGateway) -> None:
    missing = await gateway.call("GET", "/kv/")
    wrong = await gateway.call("PATCH", "/kv")

    assert (missing.status, missing.code) == (404, "route_not_found")
    assert (wrong.status, wrong.code, wrong.headers["allow"]) == (405, "method_not_allowed", "DELETE, GET, PUT")


async def test_fields_come_from_the_query_or_the_body_but_not_from_both(gateway: ServedGateway) -> None:
    path = "/kv?namespace=vars/job/api&key=greeting"

    both = await gateway.call("GET", path, fields={"version": 1})
    twice = await gateway.call("GET", path + "&key=other")

    assert (both.status, both.code) == (400, "invalid_argument")
    assert (twice.status, twice.code) == (400, "invalid_argument")


async def test_secrets_have_their_own_route_and_the_refusal_says_so(gateway: ServedGateway) -> None:
    answer = await gateway.call("PUT", "/kv", fields=PUT | {"namespace": "secrets/job/api"})

    assert answer.status == 403
    assert answer.message.endswith("write secrets with PUT /kv/secret")


async def test_a_request_id_makes_a_write_repeatable(gateway: ServedGateway) -> None:
    fields = PUT | {"if_absent": True, "key": "once"}

    first = await gateway.call("PUT", "/kv", fields=fields, headers={"X-REQUEST-ID": "r-1"})
    again = await gateway.call("PUT", "/kv", fields=fields, headers={"X-REQUEST-ID": "r-1"})
    other = await gateway.call("PUT", "/kv", fields=fields)

    assert (first.json(), again.json(), other.status) == ({"version": 1}, {"version": 1}, 409)


async def test_an_unexpected_failure_of_a_service_is_told_without_its_inside(gateway: ServedGateway) -> None:
    gateway.fakes.kv.fail_with = ValueError("hunter2 in a traceback")

    answer = await gateway.call("PUT", "/kv", fields=PUT)

    assert (answer.status, answer.code) == (500, "internal")
    assert b"hunter2" not in answer.body
    assert b"Traceback" not in answer.body


async def test_an_unexpected_failure_of_the_gateway_is_told_without_its_inside(
    gateway: ServedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> kv_pb2.GetRequest:
        raise ValueError("hunter2 in a traceback")

    monkeypatch.setattr(kv_pb2, "GetRequest", fail)

    answer = await gateway.call("GET", "/kv?namespace=a&key=b")

    assert (answer.status, answer.code) == (500, "internal")
    assert b"hunter2" not in answer.body


async def test_each_call_is_one_grpc_call(gateway: ServedGateway) -> None:
    for (method, path), fields in FIELDS_OF.items():
        await gateway.call(method, path, fields=fields if fields else None)

    seen = sum(len(servicer.seen.metadata) for servicer in gateway.fakes.servicers)
    assert seen == len(ROUTES)


async def test_deadlines_reach_the_services(gateway: ServedGateway) -> None:
    await gateway.call("GET", "/kv?namespace=vars/job/api&key=greeting")
    await gateway.call("POST", "/ssh", fields={"worker": "10.0.0.1", "command": "true", "timeout_seconds": 100})

    (read,), (command,) = gateway.fakes.kv.seen.deadlines, gateway.fakes.remote.seen.deadlines
    assert read is not None
    assert command is not None
    assert 10 < read <= 16
    assert 110 < command <= 121


async def test_a_service_that_does_not_answer_in_time_is_a_gateway_timeout(gateway: ServedGateway) -> None:
    import grpc

    gateway.fakes.kv.fail_with = RemoteError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    answer = await gateway.call("GET", "/kv?namespace=vars/job/api&key=greeting")

    assert (answer.status, answer.code) == (504, "deadline_exceeded")


async def test_many_requests_share_one_connection(gateway: ServedGateway) -> None:
    headers = {"Authorization": f"Bearer {gateway.tokens['api']}"}
    async with await RawClient.open(gateway.address) as client:
        await client.send(request_bytes("GET", "/demands", headers=headers) * 50)

        assert [(await client.answer()).status for _ in range(50)] == [200] * 50


async def test_a_websocket_is_not_spoken(gateway: ServedGateway) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}

    answer = await call(gateway.address, "GET", "/kv", token=gateway.tokens["api"], headers=headers)

    assert answer.status == 400
