"""Encryption at rest: AES-256-GCM with the keys of `kv.key`, each value bound to the place where it is stored.

The file holds one key per line, oldest first: `<key_id>:<base64url of 32 bytes>`. The last line encrypts, all decrypt. To rotate,
append a line and call `RotateSecrets` for every bucket, which reads the file again and re-encrypts all that is kept: secrets,
private keys, values of `hook_env` of runs that have not ended. When nothing remains, the older lines may go.

Associated data names the domain (`kv`, `hook_env`, …) and the place, so that a stored value opens nowhere else.
"""

import base64
import binascii
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from maand_catalog.errors import FailedPrecondition


@dataclass(frozen=True, repr=False)
class Plaintext:
    """A decrypted secret. `reveal()` is the only way to its text, so that every use is easy to find."""

    _text: str

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


KEY_BYTES = 32
NONCE_BYTES = 12


class BadKeyFile(FailedPrecondition):
    """The key file cannot be used. Mend it as the message says; without it no secret can be read or written."""

    code = "bad_key_file"
    help = "it holds one `<key_id>:<base64url of 32 bytes>` a line, oldest first, mode 0600"


class CannotDecrypt(FailedPrecondition):
    """A stored secret cannot be opened: its key is gone, or its bytes were tampered with. Put the old key back into `kv.key`."""

    code = "cannot_decrypt"
    help = "put the key it was encrypted with back into kv.key, above the last line"


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """An encrypted value as it is stored: the key's id, and nonce + ciphertext + tag."""

    key_id: str
    data: bytes


def associated_data(domain: str, *parts: str | int) -> bytes:
    """Encode what a value is bound to: every part behind its length, so that no two places encode alike."""
    encoded = [str(part).encode() for part in (domain, *parts)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


class Keyring:
    """The keys of one file. Reading it again replaces them all at once; values sealed by any of them can be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ciphers: Mapping[str, AESGCM] = {}
        self._newest = ""
        self.reload()

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._ciphers)})"

    @property
    def newest(self) -> str:
        """Id of the key that encrypts."""
        return self._newest

    def missing(self, key_ids: Collection[str]) -> frozenset[str]:
        """Return which of these keys are not in the file; it is read again when one was not among those read last."""
        if not self._ciphers.keys() >= set(key_ids):
            with suppress(BadKeyFile):
                self.reload()
        return frozenset(key_ids) - self._ciphers.keys()

    def reload(self) -> None:
        """Read the file again; the keys held stay in force when it is unusable (`BadKeyFile`)."""
        keys = read_key_file(self._path)
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._newest = list(keys)[-1]

    def seal(self, plaintext: Plaintext, binding: bytes) -> Sealed:
        """Encrypt under the newest key with a fresh random nonce, bound to a place."""
        nonce = os.urandom(NONCE_BYTES)
        key_id = self._newest
        return Sealed(key_id=key_id, data=nonce + self._ciphers[key_id].encrypt(nonce, plaintext.reveal().encode(), binding))

    def open(self, sealed: Sealed, binding: bytes) -> Plaintext:
        """Decrypt what was sealed for that place."""
        cipher = self._ciphers.get(sealed.key_id) or self._find_new(sealed.key_id)
        if cipher is None:
            raise CannotDecrypt(f"the key {sealed.key_id} is not in {self._path.name}", facts={"key_id": sealed.key_id})
        try:
            opened = cipher.decrypt(sealed.data[:NONCE_BYTES], sealed.data[NONCE_BYTES:], binding)
        except InvalidTag as error:
            message = f"a value sealed with the key {sealed.key_id} does not open where it is stored"
            raise CannotDecrypt(message, facts={"key_id": sealed.key_id}) from error
        return Plaintext(opened.decode())

    def _find_new(self, key_id: str) -> AESGCM | None:
        """Look into the file again for a key not held yet: another replica was told of a rotation first."""
        try:
            self.reload()
        except BadKeyFile:
            return None
        return self._ciphers.get(key_id)


def read_key_file(path: Path) -> dict[str, bytes]:
    """Read keys by id, oldest first."""
    try:
        mode, text = path.stat().st_mode, path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadKeyFile(f"{path} cannot be read: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise BadKeyFile(f"{path} may be read by others (mode {stat.S_IMODE(mode):04o})", help=f"chmod 600 {path}")
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            key_id, key = parse_key_line(path, number, line.strip())
            if key_id in keys:
                raise BadKeyFile(f"line {number} of {path} repeats the key id {key_id}")
            keys[key_id] = key
    if not keys:
        raise BadKeyFile(f"{path} holds no key")
    return keys


def parse_key_line(path: Path, number: int, line: str) -> tuple[str, bytes]:
    """Read `<key_id>:<base64url>`; what the line holds is never quoted."""
    key_id, _, encoded = line.partition(":")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadKeyFile(f"line {number} of {path} is not base64url") from error
    if not key_id or len(key_id) > 64 or len(key) != KEY_BYTES:
        raise BadKeyFile(f"line {number} of {path} is not `<key_id>:<base64url of {KEY_BYTES} bytes>`")
    return key_id, key
