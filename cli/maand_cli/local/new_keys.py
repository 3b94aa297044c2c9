"""The keys and certificates of a new bucket: SSH key, certificate authority, key that encrypts secrets."""

import base64
import os
import secrets
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

CA_LIFE = timedelta(days=3653)
"""Ten years: leaves are reissued by builds, the CA is replaced by hand."""


def make_ssh_key(comment: str) -> tuple[bytes, bytes]:
    """Make an ed25519 key: private in OpenSSH form, public as a line for `authorized_keys`."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + f" {comment}\n".encode()


def make_ca(name: str) -> tuple[bytes, bytes]:
    """Make a certificate authority (ECDSA P-256): key and self-signed certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(tz=UTC)
    usage = x509.KeyUsage(
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
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def make_kv_key_line() -> bytes:
    """Make one line of `kv.key`: a fresh id and 32 random bytes."""
    return f"k{secrets.token_hex(4)}:".encode() + base64.urlsafe_b64encode(os.urandom(32)) + b"\n"


def others_may_read(path: Path) -> bool:
    """Whether a file is open to its group or to everybody, as OpenSSH would refuse a key; False for what is not there."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False
