"""Calls about allocations: their state, files, certificates, and what templates and masking may read."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

import grpc.aio

from maand_contracts.catalog.v1 import allocation_pb2, kv_pb2, secret_pb2
from maand_contracts.catalog.v1.allocation_pb2_grpc import AllocationServiceStub
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_contracts.catalog.v1.secret_pb2_grpc import SecretServiceStub
from maand_executor.catalog_client.calls import LONG_DEADLINE, call_catalog, list_all, open_stream, read_stream
from maand_executor.catalog_client.conversions import from_move, to_allocation, to_planned_file
from maand_executor.rules.certificates import EndingCertificate, EndingCertificates
from maand_executor.rules.facts import (
    Allocation,
    AllocationCertificate,
    AllocationMove,
    AllocationViews,
    Certificates,
    MaskValues,
    Namespace,
    PlannedFile,
    RunIdentity,
)
from maand_wire.calls import read_pages

IDS_A_CALL = 1_000


@dataclass(frozen=True, kw_only=True)
class Purged:
    """How much was forgotten."""

    allocations: int = 0
    kv_entries: int = 0
    kv_versions: int = 0


class AllocationCalls:
    """AllocationService, and the two reads of KV and secrets that only executors make."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._allocations = AllocationServiceStub(channel)
        self._kv = KvServiceStub(channel)
        self._secrets = SecretServiceStub(channel)

    async def list_allocations(
        self, bucket_id: str, *, jobs: Sequence[str] = (), workers: Sequence[str] = (), include_removed: bool = False
    ) -> tuple[Allocation, ...]:
        """Return allocations by job and index."""
        request = allocation_pb2.ListAllocationsRequest(
            bucket_id=bucket_id, jobs=jobs, workers=workers, include_removed=include_removed
        )
        return tuple(map(to_allocation, await list_all(self._allocations.ListAllocations, request, "allocations")))

    async def list_deployed_files(self, bucket_id: str, allocation_ids: Sequence[str]) -> Mapping[str, tuple[PlannedFile, ...]]:
        """Return what was last promoted, by allocation id; allocations never promoted are absent."""
        files: dict[str, tuple[PlannedFile, ...]] = {}
        for ids in cut_in_chunks(allocation_ids):
            request = allocation_pb2.GetDeployedFilesRequest(bucket_id=bucket_id, allocation_ids=ids)
            response = await call_catalog(self._allocations.GetDeployedFiles, request, repeatable=True, deadline=LONG_DEADLINE)
            files |= {entry.allocation_id: tuple(map(to_planned_file, entry.files)) for entry in response.allocations}
        return files

    async def move_allocations(
        self,
        run: RunIdentity,
        moves: Sequence[AllocationMove],
        *,
        step_names: Sequence[str] = (),
        post_deploy_owed_jobs: Sequence[str] = (),
        post_deploy_done_jobs: Sequence[str] = (),
    ) -> None:
        """Move allocations and record steps in one transaction. Raises `RemoteError` when a move or the fence is refused."""
        request = allocation_pb2.MoveAllocationsRequest(
            bucket_id=run.bucket_id,
            run_id=run.run_id,
            fence=run.fence,
            moves=[from_move(move) for move in moves],
            step_names=step_names,
            post_deploy_owed_jobs=post_deploy_owed_jobs,
            post_deploy_done_jobs=post_deploy_done_jobs,
        )
        await call_catalog(self._allocations.MoveAllocations, request, repeatable=True, deadline=LONG_DEADLINE)

    async def purge_allocations(self, run: RunIdentity, allocation_ids: Sequence[str], *, retain_days: int) -> Purged:
        """Forget removed, stopped allocations, and KV history older than that. Not repeated: the second finds none."""
        request = allocation_pb2.PurgeAllocationsRequest(
            bucket_id=run.bucket_id,
            run_id=run.run_id,
            fence=run.fence,
            allocation_ids=allocation_ids,
            retain_days=retain_days,
        )
        response = await call_catalog(self._allocations.PurgeAllocations, request, repeatable=False, deadline=LONG_DEADLINE)
        return Purged(allocations=response.allocations, kv_entries=response.kv_entries, kv_versions=response.kv_versions)

    async def read_certificates(self, bucket_id: str, allocation_ids: Sequence[str]) -> Certificates:
        """Return certificates with private keys, and the bucket's CA certificate."""
        ca, leaves = "", list[AllocationCertificate]()
        for ids in cut_in_chunks(allocation_ids):
            request = allocation_pb2.GetAllocationCertificatesRequest(bucket_id=bucket_id, allocation_ids=ids)
            response = await call_catalog(self._allocations.GetAllocationCertificates, request, repeatable=True)
            ca = response.ca_certificate_pem
            leaves += map(to_certificate, response.certificates)
        return Certificates(ca_certificate_pem=ca, leaves=tuple(leaves))

    async def read_ending_certificates(self, bucket_id: str) -> EndingCertificates:
        """Return the certificates of the last build that end soon or have ended, and what is the matter with the CA."""
        authority = allocation_pb2.CertificateAuthority()

        async def read(request: allocation_pb2.ListCertificatesRequest) -> allocation_pb2.ListCertificatesResponse:
            response = await call_catalog(self._allocations.ListCertificates, request, repeatable=True)
            authority.CopyFrom(response.authority)
            return response

        asked = allocation_pb2.ListCertificatesRequest(bucket_id=bucket_id, ending_only=True)
        leaves = tuple([to_ending_certificate(leaf) async for leaf in read_pages(read, asked, "certificates")])
        if not authority.in_use:
            return EndingCertificates(leaves=leaves)
        return EndingCertificates(leaves=leaves, authority_message=authority.message, authority_help=authority.help)

    async def read_allocation_views(self, bucket_id: str, allocation_ids: Sequence[str]) -> AllocationViews:
        """Return everything that hooks of these allocations (all of one job) may read, decrypted."""
        request = kv_pb2.ReadAllocationViewsRequest(bucket_id=bucket_id, allocation_ids=allocation_ids)
        return to_views(await read_stream(self._kv.ReadAllocationViews, request))

    async def stream_mask_values(self, bucket_id: str, *, after_revision: int) -> AsyncIterator[MaskValues]:
        """Yield the secret values to be masked that were written after a revision, in chunks; at least one comes."""
        request = secret_pb2.StreamMaskValuesRequest(bucket_id=bucket_id, after_revision=after_revision)
        async for response in open_stream(self._secrets.StreamMaskValues, request):
            yield MaskValues(revision=response.revision, values=tuple(response.values))


def cut_in_chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split ids into calls; no ids are one call, whose answer still carries what does not depend on them."""
    for start in range(0, max(len(ids), 1), IDS_A_CALL):
        yield ids[start : start + IDS_A_CALL]


def to_certificate(certificate: allocation_pb2.AllocationCertificate) -> AllocationCertificate:
    """Read one leaf."""
    return AllocationCertificate(
        allocation_id=certificate.allocation_id,
        name=certificate.name,
        certificate_pem=certificate.certificate_pem,
        private_key_pem=certificate.private_key_pem,
    )


def to_ending_certificate(certificate: allocation_pb2.Certificate) -> EndingCertificate:
    """Read one leaf that is near or past its end."""
    return EndingCertificate(
        job=certificate.job,
        name=certificate.name,
        worker=certificate.worker,
        not_after=certificate.not_after.ToDatetime(tzinfo=UTC),
        days_left=certificate.days_left,
        ended=certificate.state == allocation_pb2.CERTIFICATE_STATE_ENDED,
        help=certificate.help,
    )


def to_views(parts: Sequence[kv_pb2.ReadAllocationViewsResponse]) -> AllocationViews:
    """Put the parts of a view stream together."""
    values: dict[str, dict[str, str]] = {}
    secret: dict[str, bool] = {}
    readable: dict[str, frozenset[str]] = {}
    for part in parts:
        if part.HasField("view"):
            readable[part.view.allocation_id] = frozenset(part.view.namespaces)
        else:
            values.setdefault(part.content.namespace, {}).update(part.content.values)
            secret[part.content.namespace] = part.content.secret
    namespaces = {name: Namespace(values=content, secret=secret[name]) for name, content in values.items()}
    return AllocationViews(namespaces=namespaces, readable=readable)
