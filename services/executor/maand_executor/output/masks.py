"""What is masked in the output of a bucket: fetched once, then only what is new, shared by all runs and tasks of one executor.

    journal --before every append--> refresh() --after the revision known--> catalog --chunks--> Masker.learn()

Values are kept while a run or task of the bucket is carried out here, and forgotten with the last of them.

Of events and results the fields are masked that may hold text which maand did not make alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol
from weakref import WeakValueDictionary

from google.protobuf.message import Message

from maand_executor.rules.facts import MaskValues
from maand_executor.rules.masking import Masker

FREE_TEXT = frozenset(
    {"diff", "help", "last_lines", "lines", "message", "notices", "problem", "reason", "text"},
)
"""Field names, in events and results, whose text was not made by maand alone. Jobs, workers, steps and versions stay readable."""


class MaskSource(Protocol):
    """Who knows the secrets: `CatalogClient`."""

    def stream_mask_values(self, bucket_id: str, *, after_revision: int) -> AsyncIterator[MaskValues]:
        """Yield what is to be masked beyond what is known."""
        ...


class BucketMasks:
    """The masks of one bucket."""

    def __init__(self, bucket_id: str) -> None:
        self._bucket_id = bucket_id
        self._masker = Masker()
        self._revision = 0
        self._begun = False
        self._beginning = asyncio.Lock()

    async def refresh(self, source: MaskSource) -> Masker:
        """Return a masker that knows every secret of this moment. Raises `RemoteError`; a repeat goes on from what arrived.

        Several may ask at once: each has learned itself all that was new when it asked. Only the first time, when that may be
        very much, one learns and the others wait; then they ask, too.
        """
        if self._begun:
            return await self._learn_new(source)
        async with self._beginning:
            masker = await self._learn_new(source)
            self._begun = True
            return masker

    async def _learn_new(self, source: MaskSource) -> Masker:
        async for chunk in source.stream_mask_values(self._bucket_id, after_revision=self._revision):
            if chunk.values:
                await asyncio.to_thread(self._masker.learn, chunk.values)
            self._revision = chunk.revision
        return self._masker


class Masks:
    """The masks of all buckets that an executor works for."""

    def __init__(self) -> None:
        self._buckets: WeakValueDictionary[str, BucketMasks] = WeakValueDictionary()

    def of(self, bucket_id: str) -> BucketMasks:
        """Return the masks of a bucket; they are shared as long as somebody holds them."""
        masks = self._buckets.get(bucket_id)
        if masks is None:
            masks = self._buckets[bucket_id] = BucketMasks(bucket_id)
        return masks


def mask_message(message: Message, mask: Callable[[str], str]) -> None:
    """Mask a message in place, whatever is nested in it."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                mask_message(part, mask)
        elif field.name in FREE_TEXT:
            mask_field(message, field.name, mask, repeated=field.is_repeated)


def mask_field(message: Message, name: str, mask: Callable[[str], str], *, repeated: bool) -> None:
    """Mask one text field, or every text of a repeated one."""
    if not repeated:
        setattr(message, name, mask(getattr(message, name)))
        return
    texts = getattr(message, name)
    texts[:] = [mask(text) for text in texts]
