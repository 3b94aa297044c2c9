"""The bucket's SSH key: whether the public half beside it, which people put on workers, is that of the key."""

import shlex

from maand_cli.local.bucket import Bucket


def find_stray_public_key(bucket: Bucket, ssh_key: str) -> str:
    """Say that `<ssh_key>.pub` belongs to another key, and how it is made right; empty when it fits or nobody can tell."""
    if not ssh_key:
        return ""
    private, public = bucket.secrets / ssh_key, bucket.secrets / f"{ssh_key}.pub"
    try:
        written, kept = public.read_bytes().split()[:2], private.read_bytes()
    except OSError:
        return ""
    from maand_wire.new_keys import derive_public_line

    wanted = derive_public_line(kept)
    if wanted is None or written == wanted.split()[:2]:
        return ""
    remedy = f"ssh-keygen -y -f {shlex.quote(str(private))} > {shlex.quote(str(public))}"
    return f"secrets/{public.name} is the public half of another key than secrets/{private.name}; write it anew: {remedy}"
