"""A certificate authority for tests of TLS: real keys, real certificates, whatever validity a test wants.

authority = TestAuthority(tmp_path / "one")
files = authority.files("server", "localhost", "127.0.0.1")              # TlsFiles: ca, certificate, key
late = authority.files("late", "localhost", lives=(-2 * DAY, -DAY))      # expired yesterday
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from maand_wire.endpoints import TlsFiles

DAY = timedelta(days=1)


class TestAuthority:
    """One CA with its directory."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = common_name(f"test authority {directory.name}")
        self.ca = directory / "ca.crt"
        builder = self._builder(self._name, self._key.public_key(), (-DAY, 30 * DAY))
        ca = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(self._key, hashes.SHA256())
        self.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))

    def files(self, name: str, *hosts: str, lives: tuple[timedelta, timedelta] = (-DAY, DAY)) -> TlsFiles:
        """Issue a certificate; the same name again replaces the files."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(common_name(name), key.public_key(), lives)
        names = x509.SubjectAlternativeName([general_name(host) for host in hosts or (name,)])
        certificate = builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        files = TlsFiles(ca=self.ca, certificate=self.directory / f"{name}.crt", key=self.directory / f"{name}.key")
        assert files.certificate is not None
        assert files.key is not None
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return files

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, lives: tuple[timedelta, timedelta]
    ) -> x509.CertificateBuilder:
        now = datetime.now(tz=UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now + lives[0]).not_valid_after(now + lives[1])


def common_name(name: str) -> x509.Name:
    """Return a subject that is only a name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def general_name(host: str) -> x509.GeneralName:
    """Return a host as what it is."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
