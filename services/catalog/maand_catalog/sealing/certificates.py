"""The certificates of one build: which stay, which are issued, and the keys of those that are new."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from maand_catalog.rules.build.certificates import CertificateFacts, LeafRequest, Validity, first_renewal
from maand_catalog.rules.build.plan import CertificatePlan
from maand_catalog.rules.workspace.bucket_facts import BucketConfig
from maand_catalog.sealing.authority import Authority, BadAuthority, Leaf, facts_of_leaf, issue_leaf
from maand_catalog.sealing.keyring import Plaintext


@dataclass(frozen=True, kw_only=True)
class Issued:
    """The certificates that all placed allocations will have, and the keys of those that are new."""

    certificates: tuple[CertificateFacts, ...]
    new: tuple[CertificateFacts, ...]
    keys: Mapping[tuple[str, str, str], Plaintext]
    ca_certificate: str
    renew_at: datetime | None


def read_authority(ca_dir: Path) -> Authority | None:
    """Read the bucket's CA; None when there is none, which is fine until a job wants a certificate."""
    certificate, key = ca_dir / "ca.crt", ca_dir / "ca.key"
    if not certificate.exists() and not key.exists():
        return None
    try:
        return Authority.from_pem(certificate.read_bytes(), key.read_bytes())
    except OSError as error:
        raise BadAuthority(f"{error.filename} cannot be read: {error.strerror}") from error


def validity_of(config: BucketConfig, now: datetime) -> Validity:
    """Return how long leaves live at this moment."""
    return Validity(now=now, lifetime=timedelta(days=config.certs_ttl), buffer=timedelta(days=config.certs_renewal_buffer))


def issue_leaves(requests: Iterable[LeafRequest], authority: Authority | None, validity: Validity) -> dict[LeafRequest, Leaf]:
    """Issue certificates; `BadAuthority` when some are wanted and there is no CA."""
    requests = list(requests)
    if not requests:
        return {}
    if authority is None:
        raise BadAuthority(f'job "{requests[0].job}" wants certificates, and this bucket has no CA')
    return {request: issue_leaf(request, authority, validity) for request in requests}


def issue_certificates(
    certificates: CertificatePlan, authority: Authority | None, validity: Validity, leaves: Mapping[LeafRequest, Leaf]
) -> Issued:
    """Bring together what stays and what is new; what was not issued ahead is issued now."""
    late = issue_leaves((request for request in certificates.to_issue if request not in leaves), authority, validity)
    new: list[CertificateFacts] = []
    keys: dict[tuple[str, str, str], Plaintext] = {}
    for request in certificates.to_issue:
        leaf = late.get(request) or leaves[request]
        assert authority is not None, "leaves are issued by a CA"
        new += facts_of_leaf(request, leaf, authority)
        keys |= {(request.job, request.name, host): leaf.key for host in request.hosts}
    present = (*certificates.unchanged, *new)
    return Issued(
        certificates=present,
        new=tuple(new),
        keys=keys,
        ca_certificate=authority.pem if authority else "",
        renew_at=first_renewal(present, validity),
    )


def serials_by_place(certificates: Iterable[CertificateFacts]) -> dict[tuple[str, str], list[str]]:
    """Return the serial numbers of each allocation's certificates."""
    serials: dict[tuple[str, str], list[str]] = {}
    for leaf in certificates:
        serials.setdefault((leaf.job, leaf.worker), []).append(leaf.serial)
    return serials
