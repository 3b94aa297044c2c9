"""KV stores, writes and callers for tests, with good defaults."""

import base64
import os
from datetime import timedelta
from pathlib import Path

from maand_catalog.rules.identity import HookCaller
from maand_catalog.rules.kv_writes import KeyNotFound, Precondition, Write
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.kv.batched_store import KvStore
from maand_catalog.store.kv.entries import get_entry
from maand_catalog.store.kv.writes import Written

VARS = "vars/job/api"
SECRETS = "secrets/job/api"


def a_keyring(directory: Path, *key_ids: str) -> Keyring:
    """Make a key file (or add keys to it) and read it."""
    path = directory / "kv.key"
    path.touch(mode=0o600)
    with path.open("a") as file:
        for key_id in key_ids or ("k1",):
            file.write(f"{key_id}:{base64.urlsafe_b64encode(os.urandom(32)).decode()}\n")
    return Keyring(path)


def a_write(
    bucket_id: str,
    key: str = "k",
    value: str | None = "v",
    *,
    namespace: str = VARS,
    secret: bool = False,
    ttl: timedelta | None = None,
    condition: Precondition | None = None,
    request_id: str = "",
) -> Write:
    return Write(
        bucket_id=bucket_id,
        namespace=namespace,
        key=key,
        value=value,
        secret=secret,
        ttl=ttl,
        condition=condition,
        writer="ada@laptop",
        request_id=request_id,
    )


class Bench:
    """A KV store and one bucket, in the words of the tests."""

    def __init__(self, kv: KvStore, bucket_id: str) -> None:
        self.kv = kv
        self.bucket_id = bucket_id

    async def put(self, key: str, value: str | None, *, namespace: str = VARS, secret: bool = False, **more: object) -> Written:
        return await self.kv.write(a_write(self.bucket_id, key, value, namespace=namespace, secret=secret, **more))  # type: ignore[arg-type]

    async def delete(self, key: str, **more: object) -> Written:
        return await self.put(key, None, **more)  # type: ignore[arg-type]

    async def value(self, key: str, *, namespace: str = VARS, version: int = 0) -> str | None:
        """Return what a read finds; None = absent."""
        try:
            entry = await self.kv.get(self.bucket_id, namespace, key, version)
        except KeyNotFound:
            with_one_query = await self.kv.database.read(lambda tx: absent(tx, self.bucket_id, namespace, key, version))
            assert with_one_query
            return None
        return entry.text(self.kv.keyring)


def absent(tx: object, bucket_id: str, namespace: str, key: str, version: int) -> bool:
    """Whether the single read agrees that the key is absent."""
    try:
        get_entry(tx, bucket_id, namespace, key, version)  # type: ignore[arg-type]
    except KeyNotFound:
        return True
    return False


def a_hook(
    bucket_id: str, *, job: str = "api", worker: str = "10.0.0.1", event: str = "pre_deploy", invocation: str = "i1"
) -> HookCaller:
    return HookCaller(
        bucket_id=bucket_id,
        run_id="r1",
        invocation_id=invocation,
        job=job,
        allocation_id=f"allocation of {job} on {worker}",
        worker=worker,
        hook="hook_x",
        event=event,
    )
