"""Versioned values in memory: preconditions, equal values, tombstones and lifetimes as the catalog has them."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from maand_hook_sdk.memory_identity import ApiError, check_name, check_namespace

MAX_VALUE_BYTES = 1024 * 1024
MAX_KEY = 512


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a value; a value of None is a tombstone."""

    number: int
    value: str | None = field(repr=False)
    expires_at: float | None = None


class KvStore:
    """Versioned values by namespace and key."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, str], list[Version]] = {}
        self._outcomes: dict[str, int] = {}

    def get(self, namespace: str, key: str, version: int = 0) -> Version:
        """Return a value, the newest or a certain version."""
        check_names(namespace, key)
        with self._lock:
            versions = self._versions.get((namespace, key), [])
            found = versions[version - 1] if 0 < version <= len(versions) else versions[-1] if versions and not version else None
        if found is None or not self._is_present(found):
            raise ApiError(404, "not_found", f"there is no such key in {namespace}; list_job_keys shows what there is")
        return found

    def put(
        self,
        namespace: str,
        key: str,
        value: str,
        *,
        ttl: int = 0,
        if_version: int | None = None,
        if_absent: bool = False,
        request_id: str = "",
    ) -> int:
        """Write a value and return the version in force; an equal value makes no new one."""
        check_names(namespace, key)
        check_value(value)
        with self._lock:
            if request_id in self._outcomes:
                return self._outcomes[request_id]
            head = self._head(namespace, key)
            present = head is not None and self._is_present(head)
            newest = head.number if head else 0
            if (if_absent and present) or (if_version is not None and if_version != newest):
                now = f"is at version {newest} now" if newest else "was never written"
                message = f"{namespace} {key} {now}; read it again and decide again"
                raise ApiError(409, "kv_precondition_lost", message, current_version=newest)
            expires_at = self._now() + ttl if ttl else None
            if head is not None and present and head.value == value and head.expires_at == expires_at:
                return self._outcome(request_id, newest)
            return self._outcome(request_id, self._append(namespace, key, head, value, expires_at))

    def delete(self, namespace: str, key: str, *, request_id: str = "") -> int:
        """Write a tombstone and return its version."""
        check_names(namespace, key)
        with self._lock:
            if request_id in self._outcomes:
                return self._outcomes[request_id]
            head = self._head(namespace, key)
            if head is None or not self._is_present(head):
                raise ApiError(404, "not_found", f"there is no such key in {namespace}; list_job_keys shows what there is")
            return self._outcome(request_id, self._append(namespace, key, head, None, None))

    def keys(self, namespace: str) -> list[str]:
        """Return the keys present in a namespace, sorted."""
        with self._lock:
            return sorted(
                key for (name, key), versions in self._versions.items() if name == namespace and self._is_present(versions[-1])
            )

    def content(self) -> dict[str, dict[str, str]]:
        """Return every value present, by namespace and key."""
        with self._lock:
            found: dict[str, dict[str, str]] = {}
            for (namespace, key), versions in sorted(self._versions.items()):
                if versions[-1].value is not None and self._is_present(versions[-1]):
                    found.setdefault(namespace, {})[key] = versions[-1].value
            return found

    def _append(self, namespace: str, key: str, head: Version | None, value: str | None, expires_at: float | None) -> int:
        versions = self._versions.setdefault((namespace, key), [])
        if head is not None and head.value == value and self._is_present(head):
            versions[-1] = Version(number=head.number, value=value, expires_at=expires_at)  # only the expiry moved
        else:
            versions.append(Version(number=len(versions) + 1, value=value, expires_at=expires_at))
        return versions[-1].number

    def _head(self, namespace: str, key: str) -> Version | None:
        versions = self._versions.get((namespace, key))
        return versions[-1] if versions else None

    def _is_present(self, version: Version) -> bool:
        return version.value is not None and (version.expires_at is None or version.expires_at > self._now())

    def _outcome(self, request_id: str, version: int) -> int:
        if request_id:
            self._outcomes[request_id] = version
        return version


def check_names(namespace: str, key: str) -> None:
    """Refuse names that the catalog would refuse."""
    check_namespace(namespace)
    check_name("key", key, MAX_KEY)


def check_value(value: str) -> None:
    """Refuse a value that the catalog would refuse."""
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise ApiError(400, "limit_exceeded", f"the value is larger than {MAX_VALUE_BYTES} bytes; keep large data elsewhere")
    if "\0" in value:
        raise ApiError(
            400, "invalid_argument", "the value holds the character U+0000; encode binary values, for example in base64"
        )
