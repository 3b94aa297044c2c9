"""Keys that a bucket or a cluster begins with: certificate authority, SSH key for workers, key that encrypts secrets.

`maand init` and `cluster_init` make the same ones. Only they import this module: `cryptography` takes long to load, and a command
line starts often.
"""

import base64
import os
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

CA_LIFE = timedelta(days=3653)
"""Ten years: leaves are issued anew by builds or by `cluster_init`, an authority is replaced by hand."""

CLOCK_SKEW = timedelta(minutes=5)
"""A worker's clock may be this much behind when it first sees the certificate."""

CA_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """Two files that belong together. `public` is a certificate, PEM, or a line for `authorized_keys`."""

    private: bytes = field(repr=False)
    public: bytes


def make_certificate_authority(name: str, *, now: datetime) -> KeyPair:
    """Make a certificate authority (ECDSA P-256): key and self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return KeyPair(private=private, public=certificate.public_bytes(serialization.Encoding.PEM))


def read_end(certificate_pem: bytes) -> datetime:
    """Return when a certificate ends. Raises ValueError for what is none."""
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc


def make_ssh_key(comment: str) -> KeyPair:
    """Make an ed25519 key: private in OpenSSH form, public as a line for `authorized_keys`."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(private=private, public=public + f" {comment}\n".encode())


def derive_public_line(private: bytes) -> bytes | None:
    """Return the public half of an SSH key, `algorithm base64`; None for what has a passphrase or is no key that we know."""
    for load in (serialization.load_ssh_private_key, serialization.load_pem_private_key):
        try:
            public = load(private, None).public_key()
            return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
            continue
    return None


def make_kv_key_line() -> bytes:
    """Make one line of `kv.key`: a fresh id and 32 random bytes."""
    return f"k{secrets.token_hex(4)}:".encode() + base64.urlsafe_b64encode(os.urandom(32)) + b"\n"
