"""Carrying out a check or a build, from a snapshot's id to the committed catalog.

    read settings and contents  ->  compile  ->  decide ports and certificates  ->  issue leaves        (no transaction open)
                                ->  one transaction: decide again from what is remembered now, write it all, check the fence

Compiling and issuing take the time and need no database; so the transaction stays short, and nobody's lease waits for it.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from maand_catalog.building.documents.compiler import Compiled, compile_config, compile_workspace, wanted_contents
from maand_catalog.database.database import Database, Transaction
from maand_catalog.errors import InvalidConfig, InvalidWorkspace, Problem
from maand_catalog.rules.build.certificates import CertificateFacts, Issuer, LeafRequest, authority_message, authority_warnings
from maand_catalog.rules.build.checked_workspace import Workspace
from maand_catalog.rules.build.plan import BuildPlan, Remembered, plan_build, plan_certificates, plan_ports
from maand_catalog.rules.namespaces import allocation_namespace, private_key_name
from maand_catalog.rules.workspace.bucket_facts import BucketConfig
from maand_catalog.rules.workspace.problems import fit_in_trailer, sort_problems
from maand_catalog.rules.workspace.tree import TreeEntry
from maand_catalog.sealing.authority import Authority, AuthorityEnded, Leaf
from maand_catalog.sealing.certificates import (
    Issued,
    issue_certificates,
    issue_leaves,
    read_authority,
    serials_by_place,
    validity_of,
)
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.fleet.blobs import read_blobs
from maand_catalog.store.fleet.buckets import StoredBucket, get_bucket
from maand_catalog.store.fleet.build_kv import merge_variables, read_variables, reset_rollout_orders
from maand_catalog.store.fleet.build_transaction import BuildIdentity, read_remembered, write_build
from maand_catalog.store.fleet.snapshots import read_snapshot
from maand_catalog.store.kv.entries import find_lost_values
from maand_catalog.store.kv.ledger import reserve_revisions
from maand_catalog.store.runs.run_states import get_held_run, get_run, stale_run_fence

LEAF_KEYS = "maand/job"
"""Below it, build keeps the private keys of certificates; all else that is sealed there is none of its."""

BUILD_FORMAT = b"maand build 1"
"""Part of a build's inputs: a catalog that builds differently from the same files raises it, and rebuilds everything once."""


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """Which snapshot is to be built, and for which claim of a run."""

    bucket_id: str
    snapshot_id: str
    run_id: str
    fence: int


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a build did."""

    changed: bool
    jobs: int
    workers: int
    active_allocations: int
    added_allocations: int = 0
    removed_allocations: int = 0
    issued_certificates: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is read for a compilation."""

    bucket: StoredBucket
    tree: tuple[TreeEntry, ...]
    contents: Mapping[bytes, bytes]
    remembered: Remembered
    usable: tuple[CertificateFacts, ...]


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a build is decided from. `usable`: the remembered certificates whose keys can be opened."""

    config: BucketConfig
    compiled: Compiled
    remembered: Remembered
    usable: tuple[CertificateFacts, ...]


class Builder:
    """Checks and builds snapshots of any bucket."""

    def __init__(self, database: Database, keyring: Keyring, ca_dir: Path) -> None:
        self._database = database
        self._keyring = keyring
        self._ca_dir = ca_dir

    async def check(self, bucket_id: str, snapshot_id: str) -> tuple[Problem, ...]:
        """Return every problem of a snapshot; changes nothing."""
        material = await self._material(bucket_id, snapshot_id)
        return find_problems(material.compiled, material.remembered)

    async def build(self, request: BuildRequest) -> BuildResult:
        """Build a snapshot for a run. InvalidWorkspace, StaleFence; then nothing changed."""
        authority = read_authority(self._ca_dir)
        bucket = await self._database.read(lambda tx: get_claimed_bucket(tx, request))
        inputs = inputs_digest(request.snapshot_id, bucket.maand_conf, authority)
        if bucket.last_build and bucket.last_build.inputs_sha256 == inputs:
            repeated = await self._database.write(lambda tx: self._repeat(tx, request, inputs, authority), alone=True)
            if repeated is not None:
                return repeated
        material = await self._material(request.bucket_id, request.snapshot_id)
        workspace = workspace_of(material)
        leaves = await asyncio.to_thread(self._issue_ahead, workspace, material, authority)
        identity = BuildIdentity(
            bucket_id=request.bucket_id, run_id=request.run_id, snapshot_id=request.snapshot_id, inputs_sha256=inputs
        )
        return await self._database.write(lambda tx: self._write(tx, request, identity, material, authority, leaves), alone=True)

    async def _material(self, bucket_id: str, snapshot_id: str) -> Material:
        found = await self._database.read(lambda tx: read_inputs(tx, self._keyring, bucket_id, snapshot_id))
        config = accepted_config(found.bucket)
        compiled = await asyncio.to_thread(compile_workspace, found.tree, found.contents, config, found.bucket.maand_conf)
        return Material(config=config, compiled=compiled, remembered=found.remembered, usable=found.usable)

    def _issue_ahead(self, workspace: Workspace, material: Material, authority: Authority | None) -> dict[LeafRequest, Leaf]:
        """Issue what is likely needed before the transaction begins."""
        validity = validity_of(material.config, datetime.now(UTC))
        wanted = plan_certificates(workspace, material.usable, issuer_of(authority), validity)
        return issue_leaves(wanted.to_issue, authority, validity)

    def _repeat(self, tx: Transaction, request: BuildRequest, inputs: bytes, authority: Authority | None) -> BuildResult | None:
        """Do what even an unchanged build does: rollout orders, `vars.toml`. None when a certificate is due."""
        bucket = get_bucket(tx, request.bucket_id)
        last = bucket.last_build
        if last is None or last.inputs_sha256 != inputs or (last.renew_at is not None and last.renew_at <= tx.now):
            return None
        if find_lost_values(tx, self._keyring, request.bucket_id, below_namespace=LEAF_KEYS):
            return None
        reset_rollout_orders(tx, self._keyring, request.bucket_id)
        variables = read_variables(tx, request.bucket_id)
        merge_variables(tx, self._keyring, request.bucket_id, variables, before=variables)
        get_held_run(tx, request.bucket_id, request.run_id, request.fence)
        validity = validity_of(accepted_config(bucket), tx.now)
        return BuildResult(
            changed=False,
            jobs=last.jobs,
            workers=last.workers,
            active_allocations=last.active_allocations,
            warnings=authority_warnings(issuer_of(authority), validity) if last.renew_at is not None else (),
        )

    def _write(
        self,
        tx: Transaction,
        request: BuildRequest,
        identity: BuildIdentity,
        material: Material,
        authority: Authority | None,
        leaves: Mapping[LeafRequest, Leaf],
    ) -> BuildResult:
        """Decide from what is remembered now, write it, and check the fence last."""
        reserve_revisions(tx, request.bucket_id, 0)  # a repeated call waits here for the first
        remembered = read_remembered(tx, request.bucket_id)
        workspace = workspace_of(material)
        validity = validity_of(material.config, tx.now)
        ports, findings = plan_ports(workspace, remembered)
        if findings:
            raise invalid_workspace([material.compiled.problem(finding) for finding in findings])
        usable = find_usable_certificates(tx, self._keyring, request.bucket_id, remembered)
        issuer = issuer_of(authority)
        certificates = plan_certificates(workspace, usable, issuer, validity)
        if certificates.unchanged and issuer and issuer.not_after <= tx.now:
            raise AuthorityEnded(authority_message(issuer.not_after, validity))  # issuing tells it too, where any are issued
        issued = issue_certificates(certificates, authority, validity, leaves)
        plan = plan_build(
            request.bucket_id,
            workspace,
            remembered,
            ports=ports,
            certificates=certificates,
            serials=serials_by_place(issued.certificates),
            now=tx.now,
        )
        write_build(tx, self._keyring, identity, plan, remembered, issued)
        get_held_run(tx, request.bucket_id, request.run_id, request.fence)
        warnings = authority_warnings(issuer, validity) if issued.certificates else ()
        return build_result_of(plan, issued, workspace, warnings)


def accepted_config(bucket: StoredBucket) -> BucketConfig:
    """Return the bucket's settings. Raises InvalidConfig for a file that an earlier version of maand accepted."""
    config = compile_config(bucket.maand_conf, bucket.bucket_id)
    if isinstance(config, tuple):
        raise InvalidConfig("maand.conf is wrong", problems=config)
    return config


def get_claimed_bucket(tx: Transaction, request: BuildRequest) -> StoredBucket:
    """Return the bucket, once the claim is known to hold: a stale one should not compile for nothing."""
    bucket = get_bucket(tx, request.bucket_id)
    run = get_run(tx, request.bucket_id, request.run_id)
    if not run.is_held_by(request.fence, tx.lapse_time):
        raise stale_run_fence(run, request.fence, tx)
    return bucket


def read_inputs(tx: Transaction, keyring: Keyring, bucket_id: str, snapshot_id: str) -> Inputs:
    """Read everything a compilation needs."""
    tree = read_snapshot(tx, bucket_id, snapshot_id)
    remembered = read_remembered(tx, bucket_id)
    return Inputs(
        bucket=get_bucket(tx, bucket_id),
        tree=tree,
        contents=read_blobs(tx, bucket_id, wanted_contents(tree)),
        remembered=remembered,
        usable=find_usable_certificates(tx, keyring, bucket_id, remembered),
    )


def find_usable_certificates(
    tx: Transaction, keyring: Keyring, bucket_id: str, remembered: Remembered
) -> tuple[CertificateFacts, ...]:
    """Leave out certificates whose private keys cannot be opened, since kv.key lost what sealed them: they are issued anew."""
    lost = find_lost_values(tx, keyring, bucket_id, below_namespace=LEAF_KEYS)
    place = {(allocation_namespace(leaf.job, leaf.worker), private_key_name(leaf.name)): leaf for leaf in remembered.certificates}
    return tuple(leaf for name, leaf in place.items() if name not in lost)


def workspace_of(material: Material) -> Workspace:
    """Return the workspace, or raise everything that is wrong with it."""
    problems = find_problems(material.compiled, material.remembered)
    if problems or material.compiled.workspace is None:
        raise invalid_workspace(problems)
    return material.compiled.workspace


def find_problems(compiled: Compiled, remembered: Remembered) -> tuple[Problem, ...]:
    """Return what is wrong with a workspace, also in view of the ports that are taken."""
    if compiled.workspace is None:
        return compiled.problems
    _, findings = plan_ports(compiled.workspace, remembered)
    return sort_problems(compiled.problem(finding) for finding in findings)


def issuer_of(authority: Authority | None) -> Issuer | None:
    """Return what leaves are compared with, if there is a CA."""
    return authority.issuer() if authority else None


def inputs_digest(snapshot_id: str, maand_conf: bytes, authority: Authority | None) -> bytes:
    """Return the digest of everything a build is made from, but for what it remembers."""
    parts = (BUILD_FORMAT, snapshot_id.encode(), hashlib.sha256(maand_conf).digest(), authority.sha256 if authority else b"")
    return hashlib.sha256(b"\0".join(parts)).digest()


def build_result_of(plan: BuildPlan, issued: Issued, workspace: Workspace, warnings: tuple[str, ...]) -> BuildResult:
    """Count what a build did."""
    return BuildResult(
        changed=True,
        jobs=len(workspace.parts.jobs),
        workers=len(workspace.workers),
        active_allocations=plan.active(),
        added_allocations=plan.added,
        removed_allocations=plan.left,
        issued_certificates=len({(leaf.job, leaf.serial) for leaf in issued.new}),
        warnings=(*workspace.warnings, *warnings),
    )


def invalid_workspace(problems: Sequence[Problem]) -> InvalidWorkspace:
    """Return the error that carries the problems, as many as fit a call's trailer; CheckSnapshot returns all."""
    told = fit_in_trailer(problems)
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    rest = "" if len(told) == len(problems) else f", the first {len(told)} are listed"
    return InvalidWorkspace(f"the workspace has {count}{rest}", facts={"problems": len(problems)}, problems=told)
