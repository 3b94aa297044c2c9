"""The bucket's CA, and issuing leaves under it. `cryptography` appears here and in `keyring` only."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from maand_catalog.errors import FailedPrecondition
from maand_catalog.rules.build.certificates import (
    NEW_AUTHORITY_HELP,
    CertificateFacts,
    Issuer,
    LeafRequest,
    Validity,
    authority_message,
)
from maand_catalog.rules.workspace.names import is_address
from maand_catalog.sealing.keyring import Plaintext

LOOPBACK = "127.0.0.1"
CLOCK_SKEW = timedelta(minutes=5)
"""A worker's clock may be this much behind when it first sees the certificate."""

SUBJECT_PARTS = {
    "common_name": NameOID.COMMON_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizational_unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "country": NameOID.COUNTRY_NAME,
    "state": NameOID.STATE_OR_PROVINCE_NAME,
    "locality": NameOID.LOCALITY_NAME,
}


class BadAuthority(FailedPrecondition):
    """The bucket's CA cannot be used. Restore `ca.crt` and `ca.key`, or make new ones with `maand init`."""

    code = "bad_authority"
    help = "restore secrets/ca.crt and secrets/ca.key; `maand init` makes them when both are missing"


class AuthorityEnded(BadAuthority):
    """The bucket's CA is over, and so is every certificate of it. Make a new one: no backup has one that lives longer."""

    code = "authority_ended"
    help = NEW_AUTHORITY_HELP


@dataclass(frozen=True)
class Authority:
    """The bucket's CA: its certificate, its key, and the digest that tells whether a leaf is of this CA."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes) -> "Authority":
        """Read the two files; `BadAuthority` when they are no pair, or no CA's."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (ValueError, TypeError, x509.ExtensionNotFound) as error:
            raise BadAuthority("ca.crt or ca.key is not PEM, has a password, or is no CA's") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or not constraints.ca:
            raise BadAuthority("ca.crt does not belong to a CA that can sign")
        if public_bytes(key.public_key()) != public_bytes(certificate.public_key()):
            raise BadAuthority("ca.key does not belong to ca.crt")
        return cls(certificate, key)

    @cached_property
    def sha256(self) -> bytes:
        """Digest of the certificate."""
        return self.certificate.fingerprint(hashes.SHA256())

    @cached_property
    def pem(self) -> str:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @cached_property
    def identifier(self) -> x509.AuthorityKeyIdentifier:
        """What leaves say about their issuer."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key())  # type: ignore[arg-type]

    @property
    def not_after(self) -> datetime:
        """When the CA ends, and with it every leaf."""
        return self.certificate.not_valid_after_utc

    def issuer(self) -> Issuer:
        """Return what leaves are compared with."""
        return Issuer(sha256=self.sha256, not_after=self.not_after)


def public_bytes(key: object) -> bytes:
    """Return a public key in the form in which keys compare."""
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A certificate just issued, with its key."""

    pem: str
    serial: str
    not_before: datetime
    not_after: datetime
    key: Plaintext


def issue_leaf(request: LeafRequest, authority: Authority, validity: Validity) -> Leaf:
    """Issue a certificate: a new P-256 key, signed by the CA, for servers and clients alike."""
    not_before = (validity.now - CLOCK_SKEW).replace(microsecond=0)
    not_after = min(validity.now + validity.lifetime, authority.not_after).replace(microsecond=0)
    if not_after <= validity.now:
        raise AuthorityEnded(authority_message(authority.not_after, validity))
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(SUBJECT_PARTS[part], value) for part, value in request.subject]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(KEY_USAGE, critical=True)
        .add_extension(EXTENDED_KEY_USAGE, critical=False)
        .add_extension(x509.SubjectAlternativeName(alternative_names(request.hosts)), critical=False)
        .add_extension(authority.identifier, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Leaf(
        pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        serial=f"{serial:x}",
        not_before=not_before,
        not_after=not_after,
        key=Plaintext(private_key_pem(key, pkcs8=request.pkcs8)),
    )


@dataclass(frozen=True, kw_only=True)
class AuthorityFacts:
    """What people are told of a CA."""

    common_name: str
    serial: str
    not_before: datetime
    not_after: datetime


def facts_of_authority(certificate_pem: str) -> AuthorityFacts:
    """Read a CA's certificate."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return AuthorityFacts(
        common_name=str(names[0].value) if names else "",
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def ends_before(certificate_pem: bytes, moment: datetime) -> bool:
    """Whether a certificate ends before a moment."""
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc < moment


def facts_of_leaf(request: LeafRequest, leaf: Leaf, authority: Authority) -> tuple[CertificateFacts, ...]:
    """Return what is remembered of a new certificate, once per host that has it."""
    return tuple(
        CertificateFacts(
            job=request.job,
            name=request.name,
            worker=host,
            common_name=request.common_name,
            serial=leaf.serial,
            not_before=leaf.not_before,
            not_after=leaf.not_after,
            spec_sha256=request.spec_sha256(),
            ca_sha256=authority.sha256,
            pem=leaf.pem,
        )
        for host in request.hosts
    )


def private_key_pem(key: ec.EllipticCurvePrivateKey, *, pkcs8: bool) -> str:
    """Write a private key: PKCS#8, or the older form that says `EC PRIVATE KEY`."""
    form = serialization.PrivateFormat.PKCS8 if pkcs8 else serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def alternative_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Return the names a leaf is good for: its hosts as what they are, and this very machine."""
    return [
        x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host.removesuffix("."))
        for host in dict.fromkeys((*hosts, LOOPBACK))
    ]


KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=True,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)

EXTENDED_KEY_USAGE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
