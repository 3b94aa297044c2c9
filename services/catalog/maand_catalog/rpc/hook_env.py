"""Values for `hook_env`: sealed when a run is asked for, opened for who carries it out, forgotten when it ends."""

import json
from collections.abc import Mapping

from maand_catalog.errors import LimitExceeded
from maand_catalog.rules.runs import Run
from maand_catalog.sealing.keyring import Keyring, Plaintext, Sealed
from maand_catalog.store.runs.hook_env import hook_env_binding

MOST_VALUES = 64
LONGEST_BYTES = 256 * 1024


class HookEnvSealer:
    """Seals and opens the values of one run, bound to that run."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, values: Mapping[str, str], *, bucket_id: str, run_id: str) -> Sealed:
        """Encrypt the values; nothing at all when there are none. LimitExceeded."""
        if not values:
            return Sealed(key_id="", data=b"")
        text = json.dumps(dict(values))
        if len(values) > MOST_VALUES or len(text) > LONGEST_BYTES:
            raise LimitExceeded(f"hook_env holds more than {MOST_VALUES} values or {LONGEST_BYTES // 1024} KiB")
        return self._keyring.seal(Plaintext(text), hook_env_binding(bucket_id, run_id))

    def open_for(self, run: Run) -> dict[str, str]:
        """Decrypt those of a run."""
        sealed = Sealed(key_id=run.hook_env_key_id, data=run.sealed_hook_env)
        return self.open(sealed, bucket_id=run.bucket_id, run_id=run.run_id)

    def open(self, sealed: Sealed, *, bucket_id: str, run_id: str) -> dict[str, str]:
        """Decrypt them."""
        if not sealed.data:
            return {}
        values: dict[str, str] = json.loads(self._keyring.open(sealed, hook_env_binding(bucket_id, run_id)).reveal())
        return values
