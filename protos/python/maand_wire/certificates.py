"""TLS in words for people: a certificate of one's own that cannot work, and why a handshake failed.

gRPC says UNAVAILABLE to everything that happens before the first byte, with OpenSSL's words; servers end the connection of a
client whose certificate they do not take without saying why. So a client's own certificate is looked at before it is shown.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from maand_wire.endpoints import EndpointError, TlsFiles


class UnusableCertificate(EndpointError):
    """One's own certificate cannot be presented. Get a new one and put it where MAAND_TLS_CERTIFICATE points."""

    code = "certificate_unusable"


class CertificateExpired(UnusableCertificate):
    """One's own certificate has expired. Get a new one and put it where MAAND_TLS_CERTIFICATE points."""

    code = "certificate_expired"


class CertificateNotYetValid(UnusableCertificate):
    """One's own certificate is not valid yet: this machine's clock is behind, or it was issued ahead of time."""

    code = "certificate_not_yet_valid"


def check_own_certificate(tls: TlsFiles, *, now: datetime | None = None) -> None:
    """Raise `UnusableCertificate` when the certificate to present is broken, has expired, or has no key."""
    if tls.certificate is None:
        return
    if tls.key is None:
        raise UnusableCertificate(f"{tls.certificate} cannot be presented without its key: set MAAND_TLS_KEY")
    begin, end = _validity(tls.certificate)
    at = now or datetime.now(tz=UTC)
    if at >= end:
        raise CertificateExpired(f"the certificate {tls.certificate} expired on {end:%Y-%m-%d at %H:%M} UTC: get a new one")
    if at < begin:
        raise CertificateNotYetValid(f"the certificate {tls.certificate} is valid from {begin:%Y-%m-%d at %H:%M} UTC on only")


def _validity(path: Path) -> tuple[datetime, datetime]:
    from cryptography import x509  # here, because most command lines present no certificate and start often

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise UnusableCertificate(f"{path} holds no certificate in PEM form") from error
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


@dataclass(frozen=True, kw_only=True)
class HandshakeFailure:
    """Why no connection came about."""

    code: str
    message: str
    help: str


HANDSHAKE_FAILURES = {
    "CERTIFICATE_VERIFY_FAILED: certificate has expired": HandshakeFailure(
        code="server_certificate_expired",
        message="the server's certificate has expired",
        help="renew it on the server; the server takes new files without a restart",
    ),
    "CERTIFICATE_VERIFY_FAILED": HandshakeFailure(
        code="server_certificate_untrusted",
        message="the server's certificate is not signed by the CA this machine trusts",
        help="name the file with the server's CA: MAAND_TLS_CA, or `ca` of the context",
    ),
    "Hostname Verification Check failed": HandshakeFailure(
        code="server_certificate_wrong_name",
        message="the server's certificate is for another name than the address used",
        help="use a name or address that the certificate carries",
    ),
    "WRONG_VERSION_NUMBER": HandshakeFailure(
        code="server_without_tls", message="the server does not speak TLS", help="is the address right?"
    ),
}

CLOSED = HandshakeFailure(
    code="connection_closed",
    message="the server closed the connection at once",
    help="it may want a client certificate it trusts (MAAND_TLS_CERTIFICATE), TLS where none was used, or is just stopping",
)
CLOSED_WORDS = ("Socket closed", "Connection reset", "Broken pipe")
"""What gRPC says when a connection was accepted and then ended; which of them is a matter of moments."""


def read_handshake_failure(details: str) -> HandshakeFailure | None:
    """Read gRPC's sentence about a connection that did not come about; None when TLS had no part in it."""
    for words, failure in HANDSHAKE_FAILURES.items():
        if words in details:
            return failure
    return CLOSED if "failed to connect" in details and any(words in details for words in CLOSED_WORDS) else None
