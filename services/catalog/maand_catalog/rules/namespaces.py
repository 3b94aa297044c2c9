"""Names of KV entries: what a namespace and a key may look like, and which of them hold secrets.

    maand/bucket                    vars/bucket              secrets/job/<job>
    maand/worker[/<host>[/tags]]    vars/bucket/job/<job>
    maand/job/<job>[/worker/<host>] vars/job/<job>

Everything below `maand` and `vars/bucket` is written by build; people and hooks write the rest.
"""

import re

from maand_catalog.errors import InvalidArgument, LimitExceeded

NAMESPACE_LIMIT = 256
"""Characters in a namespace."""

KEY_LIMIT = 512
"""Characters in a key."""

VALUE_LIMIT = 1024 * 1024
"""Bytes of UTF-8 in a value."""

SECRETS = "secrets"
"""Prefix of the namespaces that hold secrets."""

BUILD_OWNED = ("maand", "vars/bucket")
"""Prefixes whose keys build refreshes and removes."""

ROLLOUT_ORDER = "rollout_order"
"""Key, in a job's namespace, of the order in which its workers are updated."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SECRET_NAMESPACE = re.compile(r"secrets/job/[^/]+")
ALLOCATION_NAMESPACE = re.compile(r"maand/job/[^/]+/worker/[^/]+")


def check_namespace(namespace: str) -> None:
    """Refuse a namespace that is empty, too long, holds control characters, or has an empty part: nobody would find it again."""
    check_name("namespace", namespace, NAMESPACE_LIMIT)
    if "" in namespace.split("/"):
        raise InvalidArgument(
            f"the namespace {namespace} has an empty part", help="leave out slashes at its ends and second ones between parts"
        )


def check_key(key: str) -> None:
    """Refuse a key that is empty, too long or holds control characters."""
    check_name("key", key, KEY_LIMIT)


def check_name(noun: str, name: str, limit: int) -> None:
    """Refuse a name that nobody could type, or that is longer than `limit` characters."""
    if not name:
        raise InvalidArgument(f"the {noun} is empty")
    if len(name) > limit:
        raise LimitExceeded(f"the {noun} has {len(name)} characters; at most {limit} are kept", facts={"limit": limit})
    if CONTROL.search(name):
        raise InvalidArgument(f"the {noun} holds a control character")


def check_value(value: str) -> None:
    """Refuse a value that is too large, or holds U+0000, which PostgreSQL cannot keep in text. The value is never quoted."""
    size = len(value) if value.isascii() else len(value.encode())
    if size > VALUE_LIMIT:
        raise LimitExceeded(f"the value has {size} bytes; at most {VALUE_LIMIT} are kept", facts={"limit": VALUE_LIMIT})
    if "\0" in value:
        raise InvalidArgument("the value holds the character U+0000", help="encode binary values, for example in base64")


def is_built(namespace: str) -> bool:
    """Whether build refreshes and removes the keys of a namespace."""
    return any(namespace == prefix or namespace.startswith(f"{prefix}/") for prefix in BUILD_OWNED)


def is_private_key(namespace: str, key: str) -> bool:
    """Whether the entry is the private key of an allocation's certificate."""
    return key.startswith("certs/") and key.endswith(".key") and ALLOCATION_NAMESPACE.fullmatch(namespace) is not None


def holds_secrets(namespace: str) -> bool:
    """Whether a namespace is one of those that `PutSecret` writes: `secrets/job/<job>`."""
    return SECRET_NAMESPACE.fullmatch(namespace) is not None


def is_secret(namespace: str, key: str) -> bool:
    """Whether the entry is stored only encrypted."""
    return namespace == "secrets" or namespace.startswith("secrets/") or is_private_key(namespace, key)


def secret_namespace(job: str) -> str:
    """Return the namespace of a job's secrets."""
    return f"secrets/job/{job}"


def variables_namespace(job: str) -> str:
    """Return the namespace of a job's variables."""
    return f"vars/job/{job}"


def job_namespace(job: str) -> str:
    """Return the namespace in which build describes a job."""
    return f"maand/job/{job}"


def settings_namespace(job: str) -> str:
    """Return the namespace of what an operator sets for a job in `bucket.jobs.conf`."""
    return f"vars/bucket/job/{job}"


def allocation_namespace(job: str, worker: str) -> str:
    """Return the namespace in which build describes a job on one worker."""
    return f"maand/job/{job}/worker/{worker}"


def worker_namespace(worker: str) -> str:
    """Return the namespace in which build describes a worker."""
    return f"maand/worker/{worker}"


def tags_namespace(worker: str) -> str:
    """Return the namespace of a worker's tags."""
    return f"maand/worker/{worker}/tags"


def private_key_name(certificate: str) -> str:
    """Return the key, in an allocation's namespace, of the private key of a certificate."""
    return f"certs/{certificate}.key"
