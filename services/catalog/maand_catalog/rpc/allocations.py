"""AllocationService: where jobs are placed, what state each placement is in, and their certificates."""

from datetime import datetime, timedelta
from typing import Any

from maand_catalog.building.documents.compiler import compile_config
from maand_catalog.database.database import Database, Transaction
from maand_catalog.errors import InvalidArgument, LimitExceeded
from maand_catalog.rpc.callers import require_role
from maand_catalog.rpc.requests import asked_page, checked_text
from maand_catalog.rules.build.allocations import Allocation, AllocationState
from maand_catalog.rules.build.certificates import (
    NEW_AUTHORITY_HELP,
    CertificateFacts,
    CertificateState,
    Validity,
    authority_message,
    authority_state,
    leaf_help,
    leaf_state,
)
from maand_catalog.rules.identity import Role
from maand_catalog.rules.namespaces import (
    allocation_namespace,
    job_namespace,
    private_key_name,
    secret_namespace,
    settings_namespace,
    variables_namespace,
    worker_namespace,
)
from maand_catalog.rules.workspace.bucket_facts import BucketConfig
from maand_catalog.sealing.authority import AuthorityFacts, facts_of_authority
from maand_catalog.sealing.certificates import validity_of
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.fleet import allocations as store
from maand_catalog.store.fleet.buckets import get_bucket
from maand_catalog.store.fleet.build_transaction import has_certificates, read_certificates
from maand_catalog.store.fleet.snapshots import forget_unused_content
from maand_catalog.store.kv.bulk import purge_namespaces, read_sealed, trim_history
from maand_catalog.store.runs.events import record_steps
from maand_catalog.store.runs.run_states import get_held_run
from maand_contracts.catalog.v1 import allocation_pb2 as pb
from maand_contracts.catalog.v1.allocation_pb2_grpc import AllocationServiceServicer
from maand_wire.conversions import message_writer
from maand_wire.plain_text import clean_message

STATES = {
    AllocationState.PLANNED: pb.ALLOCATION_STATE_PLANNED,
    AllocationState.DEPLOYING: pb.ALLOCATION_STATE_DEPLOYING,
    AllocationState.PROMOTED: pb.ALLOCATION_STATE_PROMOTED,
    AllocationState.PENDING: pb.ALLOCATION_STATE_PENDING,
    AllocationState.FAILED: pb.ALLOCATION_STATE_FAILED,
    AllocationState.STOPPED: pb.ALLOCATION_STATE_STOPPED,
    AllocationState.REMOVED: pb.ALLOCATION_STATE_REMOVED,
}
STATE_OF = {number: state for state, number in STATES.items()}
MOST_ALLOCATIONS = 1_000
LONGEST_MESSAGE = 4_000
LONGEST_RETENTION_DAYS = 36_500


class AllocationServicer(AllocationServiceServicer):
    """Reads for viewers; moves, purges and private keys for executors."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    async def ListAllocations(self, request: pb.ListAllocationsRequest, context: Any) -> pb.ListAllocationsResponse:
        """List allocations by job and index."""
        require_role(context, Role.VIEWER)
        page = asked_page(request, str, int, str, usual=10_000, most=10_000)
        wanted = store.AllocationFilter(jobs=request.jobs, workers=request.workers, include_removed=request.include_removed)

        def intention(tx: Transaction) -> list[Allocation]:
            get_bucket(tx, request.bucket_id)
            return store.list_allocations(tx, request.bucket_id, wanted, after=page.after, limit=page.limit + 1)

        found, more = page.cut(await self._database.read(intention), lambda last: (last.job, last.position, last.allocation_id))
        return pb.ListAllocationsResponse(allocations=map(allocation_message, found), next_page_token=more)

    async def GetDeployedFiles(self, request: pb.GetDeployedFilesRequest, context: Any) -> pb.GetDeployedFilesResponse:
        """Return what was last promoted to allocations."""
        require_role(context, Role.EXECUTOR)
        ids = check_allocation_count(request.allocation_ids)
        found = await self._database.read(lambda tx: store.list_deployed_files(tx, request.bucket_id, ids))
        return pb.GetDeployedFilesResponse(
            allocations=[
                pb.DeployedFileList(
                    allocation_id=allocation_id,
                    files=[pb.DeployedFile(path=file.path, mode=file.mode, sha256=file.sha256) for file in files],
                )
                for allocation_id, files in found
            ]
        )

    async def MoveAllocations(self, request: pb.MoveAllocationsRequest, context: Any) -> pb.MoveAllocationsResponse:
        """Move allocations for a run, with the steps that led there."""
        require_role(context, Role.EXECUTOR)
        moves = [read_move(move) for move in request.moves]

        def intention(tx: Transaction) -> None:
            get_held_run(tx, request.bucket_id, request.run_id, request.fence)
            store.move_allocations(tx, request.bucket_id, moves, run_id=request.run_id)
            store.mark_post_deploy_owed(tx, request.bucket_id, request.post_deploy_owed_jobs, owed=True)
            store.mark_post_deploy_owed(tx, request.bucket_id, request.post_deploy_done_jobs, owed=False)
            if request.step_names:
                names = list(dict.fromkeys(request.step_names))
                record_steps(tx, request.bucket_id, request.run_id, request.fence, names=names)

        await self._database.write(intention)
        return pb.MoveAllocationsResponse()

    async def PurgeAllocations(self, request: pb.PurgeAllocationsRequest, context: Any) -> pb.PurgeAllocationsResponse:
        """Forget allocations that are removed and were stopped, content that nothing names, and old versions."""
        require_role(context, Role.EXECUTOR)

        def intention(tx: Transaction) -> pb.PurgeAllocationsResponse:
            get_held_run(tx, request.bucket_id, request.run_id, request.fence)
            forgotten = store.forget_allocations(tx, request.bucket_id, request.allocation_ids)
            gone_jobs, gone_workers = store.forget_emptied_jobs_and_workers(tx, request.bucket_id)
            prefixes = purged_prefixes(forgotten, gone_jobs, gone_workers)
            entries = purge_namespaces(tx, request.bucket_id, prefixes) if prefixes else 0
            store.trim_moves(tx, request.bucket_id)
            forget_unused_content(tx, request.bucket_id)
            retain = timedelta(days=request.retain_days) if request.HasField("retain_days") else None
            versions = 0 if retain is None else trim_history(tx, request.bucket_id, retain=retain)
            return pb.PurgeAllocationsResponse(allocations=len(forgotten), kv_entries=entries, kv_versions=versions)

        if request.retain_days > LONGEST_RETENTION_DAYS:
            raise LimitExceeded(f"retain_days is more than {LONGEST_RETENTION_DAYS}")
        return await self._database.write(intention, alone=True)

    async def ListCertificates(self, request: pb.ListCertificatesRequest, context: Any) -> pb.ListCertificatesResponse:
        """List the certificates of the last build."""
        require_role(context, Role.VIEWER)
        page = asked_page(request, str, str, str, usual=1_000)

        def intention(tx: Transaction) -> tuple[list[CertificateFacts], AuthorityFacts | None, bool, Validity]:
            bucket = get_bucket(tx, request.bucket_id)
            config = compile_config(bucket.maand_conf, bucket.bucket_id)
            settings = config if isinstance(config, BucketConfig) else BucketConfig(bucket_id=bucket.bucket_id)
            validity = validity_of(settings, tx.now)
            before = tx.now + validity.buffer if request.ending_only else None
            found = read_certificates(
                tx, request.bucket_id, request.jobs, ending_before=before, after=page.after, limit=page.limit + 1
            )
            pem = bucket.last_build.ca_certificate if bucket.last_build else ""
            return found, facts_of_authority(pem) if pem else None, has_certificates(tx, request.bucket_id), validity

        found, authority, in_use, validity = await self._database.read(intention)
        shown, more = page.cut(found, lambda last: (last.job, last.name, last.worker))
        ends = authority.not_after if authority else None
        return pb.ListCertificatesResponse(
            certificates=[certificate_message(leaf, ends, validity) for leaf in shown],
            next_page_token=more,
            authority=authority_as_message(authority, validity, in_use=in_use) if authority else None,
        )

    async def GetAllocationCertificates(
        self, request: pb.GetAllocationCertificatesRequest, context: Any
    ) -> pb.GetAllocationCertificatesResponse:
        """Return certificates with their private keys."""
        require_role(context, Role.EXECUTOR)
        ids = check_allocation_count(request.allocation_ids)

        def intention(tx: Transaction) -> pb.GetAllocationCertificatesResponse:
            found = store.find_allocations(tx, request.bucket_id, ids)
            id_by_place = {(each.job, each.worker): each.allocation_id for each in found.values()}
            names = sorted({each.job for each in found.values()})
            leaves = [leaf for leaf in read_certificates(tx, request.bucket_id, names) if (leaf.job, leaf.worker) in id_by_place]
            namespaces = {allocation_namespace(leaf.job, leaf.worker) for leaf in leaves}
            keys = read_sealed(tx, self._keyring, request.bucket_id, namespaces) if leaves else {}
            build = get_bucket(tx, request.bucket_id).last_build
            return pb.GetAllocationCertificatesResponse(
                ca_certificate_pem=build.ca_certificate if build else "",
                certificates=[
                    pb.AllocationCertificate(
                        allocation_id=id_by_place[leaf.job, leaf.worker],
                        name=leaf.name,
                        certificate_pem=leaf.pem,
                        private_key_pem=keys[allocation_namespace(leaf.job, leaf.worker), private_key_name(leaf.name)].reveal(),
                    )
                    for leaf in leaves
                ],
            )

        return await self._database.read(intention)


def check_allocation_count(allocation_ids: Any) -> list[str]:
    """Return the ids asked for, unless they are too many."""
    if len(allocation_ids) > MOST_ALLOCATIONS:
        raise LimitExceeded(f"more than {MOST_ALLOCATIONS} allocations in one call")
    return list(allocation_ids)


def read_move(move: pb.AllocationMove) -> store.AllocationMove:
    """Read one move."""
    if move.to_state not in STATE_OF:
        raise InvalidArgument("a move names no state", facts={"field": "moves"})
    return store.AllocationMove(
        allocation_id=move.allocation_id,
        to=STATE_OF[move.to_state],
        message=clean_message(move.message, longest=LONGEST_MESSAGE),  # for people; what is in it must not end a run
        current_version=checked_text(move.current_version, "current_version", longest=255),
        deployed_sha256=move.deployed_sha256,
        files=tuple(store.DeployedFile(path=file.path, mode=file.mode, sha256=file.sha256) for file in move.deployed_files),
    )


def purged_prefixes(forgotten: list[Allocation], gone_jobs: list[str], gone_workers: list[str]) -> list[str]:
    """Return the KV namespaces that go with allocations, and with jobs and workers that have none left."""
    prefixes = {allocation_namespace(each.job, each.worker) for each in forgotten}
    for job in gone_jobs:
        prefixes |= {named(job) for named in (job_namespace, settings_namespace, variables_namespace, secret_namespace)}
    return sorted(prefixes | set(map(worker_namespace, gone_workers)))


allocation_message = message_writer(pb.Allocation, Allocation, index=lambda allocation: allocation.position)


CERTIFICATE_STATES = {
    CertificateState.VALID: pb.CERTIFICATE_STATE_VALID,
    CertificateState.ENDS_SOON: pb.CERTIFICATE_STATE_ENDS_SOON,
    CertificateState.ENDED: pb.CERTIFICATE_STATE_ENDED,
}
leaf_message = message_writer(pb.Certificate, CertificateFacts)
authority_facts_message = message_writer(pb.CertificateAuthority, AuthorityFacts)


def certificate_message(leaf: CertificateFacts, authority_ends: datetime | None, validity: Validity) -> pb.Certificate:
    """Tell of a leaf, and how much of it is left."""
    made = leaf_message(leaf)
    made.state = CERTIFICATE_STATES[leaf_state(leaf, validity)]
    made.days_left = (leaf.not_after - validity.now).days
    made.help = leaf_help(leaf, authority_ends, validity)
    return made


def authority_as_message(authority: AuthorityFacts, validity: Validity, *, in_use: bool) -> pb.CertificateAuthority:
    """Tell of the CA, and how much of it is left."""
    made = authority_facts_message(authority)
    made.state = CERTIFICATE_STATES[authority_state(authority.not_after, validity)]
    made.days_left = (authority.not_after - validity.now).days
    made.in_use = in_use
    made.message = authority_message(authority.not_after, validity)
    made.help = NEW_AUTHORITY_HELP if made.message else ""
    return made
