"""A catalog in memory: content, certificates, invocations, events and secrets, as far as hooks and journals need one."""

import hashlib
import itertools
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence

import grpc

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.catalog_client import BlobPiece
from maand_executor.rules.facts import (
    AllocationCertificate,
    BegunInvocation,
    Certificates,
    InvocationEnd,
    InvocationOutcome,
    InvocationStart,
    JobFile,
    MaskValues,
    RunIdentity,
)
from maand_wire.errors import RemoteError

AWAY = RemoteError(grpc.StatusCode.UNAVAILABLE, "the catalog is away")
STALE = RemoteError(grpc.StatusCode.FAILED_PRECONDITION, "another executor owns the run", code="stale_fence")


class FakeCatalog:
    """Remembers everything it was told; its attributes are what tests look at and turn."""

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self.files: dict[str, tuple[JobFile, ...]] = {}
        self.certificate_names: tuple[str, ...] = ()
        self.blob_reads = 0
        self.begun: dict[str, InvocationStart] = {}
        self.tokens: dict[str, str] = {}
        self.ended: dict[str, InvocationOutcome] = {}
        self.events: list[pb.RunEvent] = []
        self.appends = 0
        self.secrets: list[str] = []
        self.append_failures: list[Exception] = []
        self.mask_failures: list[Exception] = []
        self.mask_questions: list[int] = []
        self.begin_failure: Exception | None = None
        self._request_ids: set[str] = set()
        self._numbers = itertools.count(1)

    def add_job(self, job: str, files: Mapping[str, str | bytes], *, modes: Mapping[str, int] | None = None) -> None:
        """Store the content of a job."""
        entries = []
        for path, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            digest = hashlib.sha256(data).digest()
            self.blobs[digest] = data
            entries.append(JobFile(path=path, mode=(modes or {}).get(path, 0o644), sha256=digest, size=len(data)))
        self.files[job] = tuple(sorted(entries, key=lambda entry: entry.path))

    @property
    def alive(self) -> set[str]:
        """Invocations begun and not ended."""
        return set(self.begun) - set(self.ended)

    def lines(self, *, worker: str = "", stream: "pb.OutputStream.ValueType" = pb.OUTPUT_STREAM_UNSPECIFIED) -> list[str]:
        """Output lines stored so far."""
        return [
            line
            for event in self.events
            if event.WhichOneof("event") == "output" and worker in ("", event.worker) and stream in (0, event.output.stream)
            for line in event.output.lines
        ]

    async def list_job_files(self, bucket_id: str, job: str) -> tuple[JobFile, ...]:
        return self.files[job]

    async def read_blobs(self, bucket_id: str, digests: Sequence[bytes]) -> AsyncIterator[BlobPiece]:
        self.blob_reads += 1
        for digest in digests:
            if digest not in self.blobs:
                raise RemoteError(grpc.StatusCode.NOT_FOUND, "there is no such content")
            data = self.blobs[digest]
            middle = len(data) // 2
            yield BlobPiece(sha256=digest, offset=0, data=data[:middle], last=False)
            yield BlobPiece(sha256=digest, offset=middle, data=data[middle:], last=True)

    async def read_certificates(self, bucket_id: str, allocation_ids: Sequence[str]) -> Certificates:
        leaves = [
            AllocationCertificate(
                allocation_id=one, name=name, certificate_pem=f"crt {name}", private_key_pem=f"key {name} {one}"
            )
            for one in allocation_ids
            for name in self.certificate_names
        ]
        return Certificates(ca_certificate_pem="the CA", leaves=tuple(leaves))

    async def begin_invocations(self, run: RunIdentity, starts: Sequence[InvocationStart]) -> tuple[BegunInvocation, ...]:
        if self.begin_failure:
            raise self.begin_failure
        begun = []
        for start in starts:
            number = next(self._numbers)
            one = BegunInvocation(
                invocation_id=f"0197c0de-0000-7000-8000-{number:012x}", token=f"mh_{secrets.token_hex(16)}"
            )  # whoever carries the token of an ended hook is killed, on the whole machine: other tests run beside this one
            self.begun[one.invocation_id] = start
            self.tokens[one.invocation_id] = one.token
            begun.append(one)
        return tuple(begun)

    async def end_invocations(self, bucket_id: str, ends: Sequence[InvocationEnd]) -> None:
        for end in ends:
            self.ended[end.invocation_id] = end.outcome

    async def append_events(self, run: RunIdentity, events: Sequence[pb.RunEvent], *, request_id: str) -> int:
        self.appends += 1
        if request_id not in self._request_ids:
            self._request_ids.add(request_id)
            self.events += [pb.RunEvent.FromString(event.SerializeToString()) for event in events]
        if self.append_failures:
            raise self.append_failures.pop(0)
        return len(self.events)

    async def stream_mask_values(self, bucket_id: str, *, after_revision: int) -> AsyncIterator[MaskValues]:
        self.mask_questions.append(after_revision)
        if self.mask_failures:
            raise self.mask_failures.pop(0)
        for revision in range(after_revision, len(self.secrets)):
            yield MaskValues(revision=revision + 1, values=(self.secrets[revision],))
        if after_revision == len(self.secrets):
            yield MaskValues(revision=after_revision)
