"""Leaf certificates as facts: which are wanted, which of those present still serve. Issuing them is `authority`'s work."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from maand_catalog.rules.build.placement import Placement
from maand_catalog.rules.workspace.manifest import CertificateSpec, Manifest

RENEW_HELP = "`maand build` renews it, or `maand deploy --build`"
NEW_AUTHORITY_HELP = (
    "make a new CA: move secrets/ca.crt and secrets/ca.key away, then `maand init`, `maand build` and `maand deploy`"
)


class CertificateState(StrEnum):
    """How much of its validity a certificate has left."""

    VALID = "valid"
    ENDS_SOON = "ends_soon"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class LeafRequest:
    """One certificate that is wanted: for one host, or shared by several."""

    job: str
    name: str
    hosts: tuple[str, ...]
    subject: tuple[tuple[str, str], ...]
    pkcs8: bool

    @property
    def common_name(self) -> str:
        """The subject's common name; the job's name unless the manifest says otherwise."""
        return dict(self.subject)["common_name"]

    def spec_sha256(self) -> bytes:
        """Digest of everything that makes the certificate what it is, but for its validity."""
        facts = (self.job, self.name, *self.hosts, *(f"{key}={value}" for key, value in self.subject), str(self.pkcs8))
        return hashlib.sha256("\0".join(facts).encode()).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateFacts:
    """One issued certificate of one allocation, without its key."""

    job: str
    name: str
    worker: str
    common_name: str
    serial: str
    not_before: datetime
    not_after: datetime
    spec_sha256: bytes
    ca_sha256: bytes
    pem: str


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """What a leaf tells of the CA that signed it, and when that CA ends."""

    sha256: bytes
    not_after: datetime


@dataclass(frozen=True, kw_only=True)
class Validity:
    """How long leaves live and when they are renewed, at one moment."""

    now: datetime
    lifetime: timedelta
    buffer: timedelta


def list_leaf_requests(placement: Placement, manifests: Mapping[str, Manifest]) -> Iterator[LeafRequest]:
    """Yield every certificate that is wanted, by job and name."""
    for job, manifest in manifests.items():
        for spec in manifest.certificates if placement[job] else ():
            groups = [placement[job]] if spec.one else [(host,) for host in placement[job]]
            yield from (leaf_request_of(job, spec, hosts) for hosts in groups)


def leaf_request_of(job: str, spec: CertificateSpec, hosts: tuple[str, ...]) -> LeafRequest:
    """Describe one wanted certificate."""
    subject = {"common_name": job, **dict(spec.subject)}
    return LeafRequest(job=job, name=spec.name, hosts=hosts, subject=tuple(sorted(subject.items())), pkcs8=spec.pkcs8)


def needs_issue(request: LeafRequest, present: Sequence[CertificateFacts], issuer: Issuer, validity: Validity) -> bool:
    """Whether a certificate must be issued: missing somewhere, another CA or description, or soon over.

    A leaf that ends with its CA is not renewed for that: a new one would end at the same moment.
    """
    if {each.worker for each in present} != set(request.hosts) or len({each.serial for each in present}) != 1:
        return True
    leaf = present[0]
    if leaf.ca_sha256 != issuer.sha256 or leaf.spec_sha256 != request.spec_sha256():
        return True
    return leaf.not_after - validity.now < validity.buffer and leaf.not_after < issuer.not_after


def first_renewal(present: Sequence[CertificateFacts], validity: Validity) -> datetime | None:
    """Return when the first of these certificates will need renewal; None = there are none."""
    return min((leaf.not_after - validity.buffer for leaf in present), default=None)


def state_of_end(not_after: datetime, now: datetime, *, notice: timedelta) -> CertificateState:
    """Judge an end: people are told `notice` before it."""
    if not_after <= now:
        return CertificateState.ENDED
    return CertificateState.ENDS_SOON if not_after - now < notice else CertificateState.VALID


def leaf_state(leaf: CertificateFacts, validity: Validity) -> CertificateState:
    """Judge a leaf: soon is when a build renews it."""
    return state_of_end(leaf.not_after, validity.now, notice=validity.buffer)


def authority_state(not_after: datetime, validity: Validity) -> CertificateState:
    """Judge a CA: soon is when it shortens the leaves that are issued now."""
    return state_of_end(not_after, validity.now, notice=validity.lifetime)


def leaf_help(leaf: CertificateFacts, authority_ends: datetime | None, validity: Validity) -> str:
    """Say what to do about a leaf: one that ends with its CA cannot be renewed, only replaced under another CA."""
    if leaf_state(leaf, validity) is CertificateState.VALID:
        return ""
    return NEW_AUTHORITY_HELP if authority_ends is not None and leaf.not_after >= authority_ends else RENEW_HELP


def authority_message(not_after: datetime, validity: Validity) -> str:
    """Say what is the matter with a CA. Empty = nothing."""
    match authority_state(not_after, validity):
        case CertificateState.VALID:
            return ""
        case CertificateState.ENDED:
            return f"the bucket's CA ended on {not_after:%Y-%m-%d}"
        case CertificateState.ENDS_SOON:
            short = f"certificates end with it, before their {validity.lifetime.days} days of certs_ttl are over"
            return f"the bucket's CA ends on {not_after:%Y-%m-%d}: {short}"


def authority_warnings(issuer: Issuer | None, validity: Validity) -> tuple[str, ...]:
    """Return what a build warns of that issues under this CA."""
    message = authority_message(issuer.not_after, validity) if issuer else ""
    return (f"{message}; {NEW_AUTHORITY_HELP}",) if message else ()
