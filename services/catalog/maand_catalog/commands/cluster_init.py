"""`python -m maand_catalog.commands.cluster_init DIR`: certificates, tokens and keys of a cluster, a directory for each part.

    DIR/authority/  ca.crt ca.key                                     signs the services' certificates; no service sees the key
        catalog/    tls.crt tls.key tls-ca.crt kv.key ca.crt ca.key   ca.*: the authority of jobs' certificates
        executor/   tls.crt tls.key tls-ca.crt token worker.key known_hosts ca.crt
        gateway/    tls.crt tls.key tls-ca.crt                        no token: it can do nothing by itself
        operator/   ca.crt operator.token viewer.token                for people
        worker/     worker.key.pub                                    for authorized_keys

May be repeated: what is there stays, what is missing is made, certificates with less than 30 days left are renewed (services take
them without a restart), and tokens are made known to the database again if it lost them.

| Variable              | Meaning                                                                         | Default |
|-----------------------|---------------------------------------------------------------------------------|---------|
| `MAAND_DATABASE_URL`  | where tokens are made known                                                     | (needed)|
| `MAAND_CLUSTER_NAMES` | more names and addresses by which people reach the catalogs, comma-separated    | none    |
| `MAAND_OWNER`         | number of the user to whom the services' files are given, when run as root      | 10001   |
"""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from maand_catalog.database.database import Database, Transaction
from maand_catalog.database.migrate import migrate_database
from maand_catalog.errors import CatalogError
from maand_catalog.ids import new_api_token, new_id
from maand_catalog.rules.build.certificates import LeafRequest, Validity
from maand_catalog.rules.identity import Role, token_digest
from maand_catalog.sealing.authority import Authority, ends_before, issue_leaf
from maand_catalog.settings import require_variable
from maand_catalog.store.tokens import TokenExpired, TokenRevoked, TokenUnknown, create_token, find_role_caller
from maand_wire.new_keys import make_certificate_authority, make_kv_key_line, make_ssh_key

LEAF_LIFE, RENEW_BEFORE = timedelta(days=365), timedelta(days=30)

NAMES = {
    "catalog": ("catalog", "catalog1", "catalog2", "localhost"),
    "executor": ("executor", "localhost"),
    "gateway": ("gateway", "localhost"),
}
"""Who gets a certificate, and for which names; each is good for 127.0.0.1 too."""

TOKENS = {
    "executor/token": Role.EXECUTOR,
    "operator/operator.token": Role.OPERATOR,
    "operator/viewer.token": Role.VIEWER,
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The directory being filled, and the moment."""

    directory: Path
    now: datetime
    owner: int | None = None
    names: tuple[str, ...] = ()

    def keep(self, path: str, make: Callable[[], bytes], *, mode: int = 0o600) -> bytes:
        """Return a file's content, made when it is missing."""
        file = self.directory / path
        if not file.exists():
            self.put(path, make(), mode=mode)
        return file.read_bytes()

    def put(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        """Write a file whole or not at all, with its mode and owner from the first moment on."""
        file = self.directory / path
        self.make_directory(file.parent)
        fresh = file.with_name(f".{file.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content)
        fresh.chmod(mode)
        if self.owner is not None:
            os.chown(fresh, self.owner, self.owner)
        fresh.replace(file)

    def make_directory(self, directory: Path) -> None:
        """Make a directory that only its part may enter."""
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        if self.owner is not None:
            os.chown(directory, self.owner, self.owner)


def make_files(cluster: Cluster) -> None:
    """Make every key and certificate that is missing or about to end."""
    authority = keep_authority(cluster, "authority", "maand cluster")
    keep_authority(cluster, "catalog", "maand jobs")
    for part, names in NAMES.items():
        keep_certificate(cluster, authority, part, (*names, *(cluster.names if part == "catalog" else ())))
        cluster.put(f"{part}/tls-ca.crt", authority.pem.encode())
    cluster.put("operator/ca.crt", authority.pem.encode())
    cluster.put("executor/ca.crt", (cluster.directory / "catalog/ca.crt").read_bytes())
    cluster.keep("executor/known_hosts", lambda: b"")
    cluster.keep("catalog/kv.key", make_kv_key_line)
    keep_ssh_key(cluster)


def keep_authority(cluster: Cluster, part: str, name: str) -> Authority:
    """Return the authority of a directory, made when it is missing."""
    certificate, key = (cluster.directory / part / file for file in ("ca.crt", "ca.key"))
    if not certificate.exists() and not key.exists():
        made = make_certificate_authority(name, now=cluster.now)
        cluster.put(f"{part}/ca.key", made.private)
        cluster.put(f"{part}/ca.crt", made.public)
    return Authority.from_pem(certificate.read_bytes(), key.read_bytes())


def keep_certificate(cluster: Cluster, authority: Authority, part: str, names: tuple[str, ...]) -> None:
    """Issue a part's certificate when it has none or one that ends soon."""
    file = cluster.directory / part / "tls.crt"
    if file.exists() and not ends_before(file.read_bytes(), cluster.now + RENEW_BEFORE):
        return
    request = LeafRequest(job="", name=part, hosts=names, subject=(("common_name", part),), pkcs8=True)
    leaf = issue_leaf(request, authority, Validity(now=cluster.now, lifetime=LEAF_LIFE, buffer=RENEW_BEFORE))
    cluster.put(f"{part}/tls.key", leaf.key.reveal().encode())
    cluster.put(f"{part}/tls.crt", leaf.pem.encode())


def keep_ssh_key(cluster: Cluster) -> None:
    """Make the key with which executors log in to workers, and its public half for them."""
    if not (cluster.directory / "executor/worker.key").exists():
        made = make_ssh_key("maand-cluster")
        cluster.put("executor/worker.key", made.private)
        cluster.put("executor/worker.key.pub", made.public)
    cluster.put("worker/worker.key.pub", (cluster.directory / "executor/worker.key.pub").read_bytes(), mode=0o644)


async def make_tokens(cluster: Cluster, database_url: str) -> None:
    """Make every token, and make sure that the database knows it."""
    database = await Database.open(database_url)
    try:
        await migrate_database(database)
        for path, role in TOKENS.items():
            secret = cluster.keep(path, lambda: f"{new_api_token()}\n".encode()).decode().strip()
            await database.write(know_token(token_digest(secret), role))
    finally:
        await database.close()


def know_token(digest: bytes, role: Role) -> Callable[[Transaction], None]:
    """Return the intention that makes a token known unless it is; one that was revoked stays so."""

    def know(tx: Transaction) -> None:
        try:
            find_role_caller(tx, digest)
        except TokenUnknown:
            create_token(
                tx, token_id=new_id(), token_sha256=digest, name=f"cluster {role}", role=role, ttl=None, actor="cluster_init"
            )
        except (TokenRevoked, TokenExpired):
            return

    return know


def main() -> None:
    """Fill the directory; exit 1 with one sentence when something is in the way."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m maand_catalog.commands.cluster_init DIR")
    cluster = Cluster(
        directory=Path(sys.argv[1]),
        now=datetime.now(tz=UTC),
        owner=int(os.environ.get("MAAND_OWNER", "10001")) if os.geteuid() == 0 else None,
        names=tuple(filter(None, os.environ.get("MAAND_CLUSTER_NAMES", "").split(","))),
    )
    try:
        make_files(cluster)
        asyncio.run(make_tokens(cluster, require_variable(os.environ, "MAAND_DATABASE_URL", "postgresql://maand@/maand")))
    except (CatalogError, OSError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{cluster.directory} holds what the cluster needs\n")


if __name__ == "__main__":
    main()
