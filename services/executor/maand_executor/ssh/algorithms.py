"""What a login offers: the fast algorithms first, then all that asyncssh offers by itself, so that hardened servers find theirs.

`algorithms.conf` says so once, in OpenSSH's words: logins with an `ssh_config` read it after that, others have it as options.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALGORITHMS_FILE = Path(__file__).with_name("algorithms.conf")

OPTIONS = {"KexAlgorithms": "kex_algs", "Ciphers": "encryption_algs"}
"""asyncssh's names of what the file says; `Compression no` is how it begins anyway."""


def read_options(text: str) -> Mapping[str, Any]:
    """Return what an OpenSSH configuration says of algorithms, as options of asyncssh."""
    lines = (line.partition(" ") for line in text.splitlines())
    return {OPTIONS[keyword]: value for keyword, _, value in lines if keyword in OPTIONS}


PREFERRED_ALGORITHMS = read_options(ALGORITHMS_FILE.read_text(encoding="utf-8"))

ECDSA_TYPES = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
RSA_TYPES = ("rsa-sha2-512", "rsa-sha2-256")
HOST_KEY_TYPES = ("ssh-ed25519", *ECDSA_TYPES, *RSA_TYPES)
"""Host keys we accept, best first."""
TRUSTED_TYPES = (("ssh-ed25519",), ECDSA_TYPES, RSA_TYPES)
"""Those that are looked for when keys are pinned: of each line one, as OpenSSH generates them."""
