"""Who a request comes from, read from its headers."""

import pytest

from maand_runtime_gateway.callers import read_caller

TOKEN = (b"authorization", b"Bearer mh_abc")


def test_the_token_and_the_claims_become_metadata_beside_the_mark_of_a_hook() -> None:
    caller = read_caller([TOKEN, (b"x-allocation-id", b"a-1"), (b"hook", b"hook_x"), (b"event", b"cli"), (b"host", b"x")])

    assert caller is not None
    assert caller.metadata == (
        ("maand-caller", "hook"),
        ("authorization", "Bearer mh_abc"),
        ("maand-claimed-allocation", "a-1"),
        ("maand-claimed-hook", "hook_x"),
        ("maand-claimed-event", "cli"),
    )


@pytest.mark.parametrize("value", [b"", b"mh_abc", b"Basic mh_abc", b"Bearer", b"Bearer ", b"Token mh_abc", b"Bearermh_abc"])
def test_anything_but_a_bearer_token_is_no_token(value: bytes) -> None:
    assert read_caller([(b"authorization", value)]) is None


@pytest.mark.parametrize("value", [b"Bearer mh_abc", b"bearer mh_abc", b"BEARER   mh_abc "])
def test_the_scheme_may_be_written_in_any_case(value: bytes) -> None:
    caller = read_caller([(b"authorization", value)])

    assert caller is not None
    assert ("authorization", "Bearer mh_abc") in caller.metadata


def test_two_tokens_are_one_token_that_nobody_has() -> None:
    caller = read_caller([TOKEN, (b"authorization", b"Bearer mh_def")])

    assert caller is not None
    assert ("authorization", "Bearer mh_abc, Bearer mh_def") in caller.metadata


def test_two_claims_are_one_claim_that_agrees_with_nothing() -> None:
    caller = read_caller([TOKEN, (b"event", b"cli"), (b"event", b"pre_deploy")])

    assert caller is not None
    assert ("maand-claimed-event", "cli, pre_deploy") in caller.metadata


def test_metadata_cannot_be_smuggled_in_as_headers() -> None:
    caller = read_caller([TOKEN, (b"maand-caller", b"operator"), (b"maand-claimed-hook", b"hook_other")])

    assert caller is not None
    assert caller.metadata == (("maand-caller", "hook"), ("authorization", "Bearer mh_abc"))


def test_bytes_that_metadata_cannot_carry_are_escaped() -> None:
    caller = read_caller([(b"authorization", "Bearer grüße".encode()), (b"hook", b"a\x01b")])

    assert caller is not None
    assert all(value.isascii() and value.isprintable() for _, value in caller.metadata)


def test_a_header_of_any_length_becomes_metadata_that_grpc_takes() -> None:
    caller = read_caller([(b"authorization", b"Bearer " + b"a" * 100_000), (b"hook", b"\xff" * 100_000)])

    assert caller is not None
    assert sum(len(name) + len(value) for name, value in caller.metadata) < 8192


def test_the_request_id_is_kept_apart() -> None:
    caller = read_caller([TOKEN, (b"x-request-id", b"r-1")])

    assert caller is not None
    assert caller.request_id == "r-1"
