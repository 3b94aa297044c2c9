"""Writing the KV store: a batch of puts and deletes from anybody, decided one by one and stored together."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import delete, insert, select

from maand_catalog.database.statements import one_of
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import CatalogError, InvalidArgument
from maand_catalog.rules.kv_writes import Head, NewExpiry, NewVersion, Unchanged, Write, decide_write
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.kv.ledger import Ledger
from maand_catalog.store.tables.kv import kv_requests

REQUESTS_KEPT = timedelta(days=1)
"""How long a repeated request is answered with its first outcome: far longer than anybody retries."""

r = kv_requests.c


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is now in force."""

    version: int
    revision: int


class KvWriter:
    """Carries out batches of writes; the function behind the batcher of KV writes."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def carry_out(self, tx: Transaction, writes: Sequence[Write]) -> list[Written | Exception]:
        """Carry out writes in the order given; each has its own outcome. Buckets are locked in one order everywhere."""
        by_bucket: dict[str, list[int]] = defaultdict(list)
        for position, write in enumerate(writes):
            by_bucket[write.bucket_id].append(position)
        outcomes: dict[int, Written | Exception] = {}
        for bucket_id in sorted(by_bucket):
            positions = by_bucket[bucket_id]
            answers = self._write_bucket(tx, bucket_id, [writes[position] for position in positions])
            outcomes.update(zip(positions, answers, strict=True))
        return [outcomes[position] for position in range(len(writes))]

    def _write_bucket(self, tx: Transaction, bucket_id: str, writes: Sequence[Write]) -> list[Written | Exception]:
        try:
            ledger = Ledger(tx, self._keyring, bucket_id, room=len(writes))
        except CatalogError as error:
            return [error] * len(writes)
        batch = BucketWrites(tx, ledger, recall_answers(tx, bucket_id, writes), writes)
        outcomes = [batch.carry_out(write) for write in writes]
        ledger.write()
        remember_answers(tx, bucket_id, batch.to_remember)
        return outcomes


class BucketWrites:
    """Writes to one bucket: what is newest now, what was already answered, what is new."""

    def __init__(self, tx: Transaction, ledger: Ledger, answered: Mapping[str, "Answer"], writes: Iterable[Write]) -> None:
        self._tx = tx
        self._ledger = ledger
        self._answered = dict(answered)
        self._heads = ledger.look_up({(write.namespace, write.key) for write in writes})
        self.to_remember: list[tuple[str, Answer]] = []

    def carry_out(self, write: Write) -> Written | Exception:
        """Answer a repeat, or decide and enter the write."""
        try:
            answer = self._answered.get(write.request_id) if write.request_id else None
            if answer is not None:
                return answer.to(write)
            written = self._enter(write)
        except CatalogError as error:
            return error
        if write.request_id:
            answer = Answer(namespace=write.namespace, key=write.key, written=written)
            self._answered[write.request_id] = answer
            self.to_remember.append((write.request_id, answer))
        return written

    def _enter(self, write: Write) -> Written:
        name = (write.namespace, write.key)
        head = self._heads.get(name)
        match decide_write(head, write, self._tx.now):
            case NewVersion(version=version, expires_at=expires_at):
                revision = self._ledger.enter(
                    name,
                    write.value,
                    version=version,
                    writer=write.writer,
                    secret=write.secret,
                    expires_at=expires_at,
                    replaces=head.revision if head else None,
                )
                head = Head(version=version, revision=revision, value=write.value, expires_at=expires_at)
            case NewExpiry(expires_at=expires_at) if head:
                revision = self._ledger.extend(name, head.revision, expires_at)
                head = replace(head, revision=revision, expires_at=expires_at)
            case Unchanged():
                pass
        assert head is not None
        self._heads[name] = head
        return Written(version=head.version, revision=head.revision)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The first outcome of a request."""

    namespace: str
    key: str
    written: Written

    def to(self, write: Write) -> Written:
        """Return the first outcome to a repeat of the same request; another write under its id is refused."""
        if (write.namespace, write.key) != (self.namespace, self.key):
            raise InvalidArgument("this request_id was used for another write", help="choose a new request_id for every write")
        return self.written


def recall_answers(tx: Transaction, bucket_id: str, writes: Iterable[Write]) -> dict[str, Answer]:
    """Return the answers already given to requests of these writes."""
    ids = sorted({write.request_id for write in writes if write.request_id})
    if not ids:
        return {}
    wanted = select(r.request_id, r.namespace, r.key, r.version, r.revision).where(
        r.bucket_id == bucket_id, one_of(tx, r.request_id, ids)
    )
    return {
        row.request_id: Answer(namespace=row.namespace, key=row.key, written=Written(version=row.version, revision=row.revision))
        for row in tx.connection.execute(wanted)
    }


def remember_answers(tx: Transaction, bucket_id: str, answers: Sequence[tuple[str, Answer]]) -> None:
    """Keep answers for repeats, and forget those that nobody repeats any more."""
    if not answers:
        return
    forgotten = delete(kv_requests).where(r.bucket_id == bucket_id, r.created_at < tx.now - REQUESTS_KEPT)
    tx.connection.execute(forgotten)
    rows = [
        {
            "bucket_id": bucket_id,
            "request_id": request_id,
            "namespace": answer.namespace,
            "key": answer.key,
            "version": answer.written.version,
            "revision": answer.written.revision,
            "created_at": tx.now,
        }
        for request_id, answer in answers
    ]
    tx.connection.execute(insert(kv_requests), rows)
