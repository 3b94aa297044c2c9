"""Watches over real gRPC: what they tell, what they resume with, when they cannot."""

from datetime import timedelta
from typing import Any

import pytest

from maand_catalog.store.kv.bulk import trim_history
from maand_contracts.catalog.v1 import kv_pb2 as pb
from maand_wire.channels import REVISION_HEADER
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.kv_builders import VARS
from tests.contracts.catalog.kv_verbs import Kv, Status


async def test_a_watch_tells_what_happens_from_now_on_without_secret_values(kv: Kv) -> None:
    await kv.put("before", "v")
    call: Any = kv.stub.Watch(pb.WatchRequest(bucket_id=kv.bucket_id, namespace_prefix=""))
    await call.initial_metadata()

    await kv.put("k", "a")
    await kv.put_secret("s", "hidden")
    await kv.call("Delete", pb.DeleteRequest(bucket_id=kv.bucket_id, namespace=VARS, key="k"))

    changes = [await call.read() for _ in range(3)]
    assert [(each.entry.key, each.entry.value, each.entry.deleted) for each in changes] == [
        ("k", "a", False),
        ("s", "", False),
        ("k", "", True),
    ]
    assert [each.revision for each in changes] == sorted(each.revision for each in changes)
    call.cancel()


async def test_the_headers_of_a_watch_say_what_to_resume_with_before_its_first_change(kv: Kv) -> None:
    written = await kv.put("before", "v")
    call: Any = kv.stub.Watch(pb.WatchRequest(bucket_id=kv.bucket_id, namespace_prefix=""))
    headers = dict(await call.initial_metadata())
    call.cancel()
    assert headers[REVISION_HEADER] == str(written.revision)


async def test_a_watch_resumes_without_gap_or_repeat(kv: Kv) -> None:
    revisions = [(await kv.put("k", f"{number}")).revision for number in range(450)]

    call: Any = kv.stub.Watch(pb.WatchRequest(bucket_id=kv.bucket_id, namespace_prefix=VARS, after_revision=revisions[0]))
    seen = [(await call.read()).revision for _ in range(449)]
    call.cancel()

    assert seen == revisions[1:]


async def test_a_watch_from_before_what_is_kept_is_out_of_range(kv: Kv, clock: ShiftedClock) -> None:
    revisions = [(await kv.put("k", f"{number}")).revision for number in range(10)]
    clock.advance(timedelta(days=40))
    await kv.catalog.database.write(lambda tx: trim_history(tx, kv.bucket_id, retain=timedelta(days=30)))

    call: Any = kv.stub.Watch(pb.WatchRequest(bucket_id=kv.bucket_id, after_revision=revisions[0]))
    with pytest.raises(RemoteError) as caught, remote_errors():
        await call.read()

    assert caught.value.status is Status.OUT_OF_RANGE
