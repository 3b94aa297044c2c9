"""The rules of one KV write, and of names."""

from datetime import UTC, datetime, timedelta

import pytest

from maand_catalog.errors import InvalidArgument, LimitExceeded
from maand_catalog.rules.kv_writes import (
    Decision,
    Head,
    KeyNotFound,
    KvPreconditionLost,
    NewExpiry,
    NewVersion,
    Precondition,
    Unchanged,
    Write,
    checked_ttl,
    decide_write,
)
from maand_catalog.rules.namespaces import check_key, check_namespace, check_value, is_private_key, is_secret

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=10)
MINUTE = timedelta(seconds=60)


def a_head(version: int = 3, value: str | None = "a", expires_at: datetime | None = None) -> Head:
    return Head(version=version, revision=30, value=value, expires_at=expires_at)


def a_write(value: str | None = "a", *, ttl: timedelta | None = None, condition: Precondition | None = None) -> Write:
    return Write(bucket_id="b", namespace="vars/job/api", key="k", value=value, ttl=ttl, condition=condition, writer="ada")


VERSIONS: list[tuple[Head | None, Write, Decision]] = [
    (None, a_write("a"), NewVersion(version=1, expires_at=None)),
    (None, a_write(""), NewVersion(version=1, expires_at=None)),
    (None, a_write("a", ttl=MINUTE), NewVersion(version=1, expires_at=NOW + MINUTE)),
    (a_head(), a_write("a"), Unchanged()),
    (a_head(), a_write("b"), NewVersion(version=4, expires_at=None)),
    (a_head(value=""), a_write(""), Unchanged()),
    (a_head(), a_write(None), NewVersion(version=4, expires_at=None)),
    (a_head(value=None), a_write("a"), NewVersion(version=4, expires_at=None)),
    (a_head(expires_at=NOW), a_write("a"), NewVersion(version=4, expires_at=None)),
    (a_head(expires_at=LATER), a_write("a"), NewExpiry(expires_at=None)),
    (a_head(), a_write("a", ttl=MINUTE), NewExpiry(expires_at=NOW + MINUTE)),
    (a_head(expires_at=LATER), a_write("a", ttl=timedelta(seconds=10)), Unchanged()),
]


@pytest.mark.parametrize(("head", "write", "decision"), VERSIONS)
def test_a_write_makes_a_version_unless_the_value_is_there(head: Head | None, write: Write, decision: Decision) -> None:
    assert decide_write(head, write, NOW) == decision


@pytest.mark.parametrize("head", [None, a_head(value=None), a_head(expires_at=NOW)])
def test_what_is_absent_cannot_be_deleted(head: Head | None) -> None:
    with pytest.raises(KeyNotFound):
        decide_write(head, a_write(None), NOW)


HOLD = [
    (None, None),
    (a_head(value=None), None),
    (a_head(expires_at=NOW), None),
    (a_head(), 3),
    (a_head(value=None), 3),
    (a_head(expires_at=NOW), 3),
    (None, 0),
]
LOST = [(a_head(), None), (a_head(), 2), (a_head(), 4), (None, 1), (a_head(expires_at=LATER), None), (a_head(), 0)]


@pytest.mark.parametrize(("head", "version"), HOLD)
def test_a_precondition_that_holds_lets_the_write_happen(head: Head | None, version: int | None) -> None:
    decision = decide_write(head, a_write("new", condition=Precondition(version=version)), NOW)

    assert isinstance(decision, NewVersion)


@pytest.mark.parametrize(("head", "version"), LOST)
def test_a_lost_precondition_tells_the_newest_version(head: Head | None, version: int | None) -> None:
    with pytest.raises(KvPreconditionLost) as caught:
        decide_write(head, a_write("new", condition=Precondition(version=version)), NOW)

    assert caught.value.facts == {"current_version": head.version if head else 0}
    assert caught.value.code == "kv_precondition_lost"


def test_a_write_prints_no_value() -> None:
    assert "hunter2" not in repr(a_write("hunter2"))
    assert "hunter2" not in repr(a_head(value="hunter2"))


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "tab\t", "\x7f", "\x85"])
def test_names_without_text_or_with_control_characters_are_refused(name: str) -> None:
    for check in (check_namespace, check_key):
        with pytest.raises(InvalidArgument) as caught:
            check(name)
        assert not isinstance(caught.value, LimitExceeded)


def test_names_are_limited_in_characters() -> None:
    check_namespace("ü" * 256)
    check_key("ü" * 512)
    for check, name in ((check_namespace, "a" * 257), (check_key, "a" * 513)):
        with pytest.raises(LimitExceeded):
            check(name)


def test_values_are_limited_in_bytes() -> None:
    check_value("")
    check_value("a" * 1024 * 1024)
    check_value("ü" * (512 * 1024))
    for value in ("a" * (1024 * 1024 + 1), "ü" * (512 * 1024 + 1)):
        with pytest.raises(LimitExceeded):
            check_value(value)


def test_a_value_may_hold_any_text_but_the_null_character() -> None:
    check_value("line\nend\ttab \x1b[0m 🦆")
    with pytest.raises(InvalidArgument):
        check_value("a\0b")


def test_a_ttl_is_limited() -> None:
    assert checked_ttl(0) is None
    assert checked_ttl(5) == timedelta(seconds=5)
    with pytest.raises(InvalidArgument):
        checked_ttl(2**63)


def test_secrets_and_private_keys_are_known_by_their_names() -> None:
    assert is_secret("secrets/job/api", "k")
    assert is_secret("maand/job/api/worker/10.0.0.1", "certs/web.key")
    assert not is_secret("maand/job/api/worker/10.0.0.1", "certs/web.crt")
    assert not is_secret("vars/job/api", "certs/web.key")
    assert not is_private_key("maand/job/api", "certs/web.key")
