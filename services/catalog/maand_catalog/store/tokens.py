"""API tokens and the audit trail."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy import bindparam, insert, select, update

from maand_catalog.database.statements import select_page
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound, Unauthenticated
from maand_catalog.ids import new_id
from maand_catalog.rules.identity import Role, RoleCaller
from maand_catalog.store.tables.identity import api_tokens, audit_records


class TokenUnknown(Unauthenticated):
    """Nobody was ever given this token here. Look whether it belongs to another cluster, or ask an operator for one."""

    code = "token_unknown"
    help = "does it belong to another cluster? an operator makes tokens: maand-catalog token create"


class TokenRevoked(Unauthenticated):
    """The token was taken back. Ask an operator for a new one."""

    code = "token_revoked"
    help = "ask an operator for a new token"


class TokenExpired(Unauthenticated):
    """The token's time is over. Ask an operator for a new one."""

    code = "token_expired"
    help = "ask an operator for a new token"


@dataclass(frozen=True, kw_only=True)
class ApiToken:
    """An API token without its secret part."""

    token_id: str
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """One act worth remembering for good."""

    audit_id: str
    time: datetime
    actor: str
    action: str
    subject: str
    bucket_id: str | None


TOKEN_COLUMNS = [api_tokens.c[field.name] for field in fields(ApiToken)]
FIND_ROLE_CALLER = select(api_tokens.c.name, api_tokens.c.role, api_tokens.c.expires_at, api_tokens.c.revoked_at).where(
    api_tokens.c.token_sha256 == bindparam("the_token")
)
AUDIT_COLUMNS = [audit_records.c[field.name] for field in fields(AuditRecord)]


def create_token(
    tx: Transaction, *, token_id: str, token_sha256: bytes, name: str, role: Role, ttl: timedelta | None, actor: str
) -> ApiToken:
    """Remember a token; this is audited."""
    token = ApiToken(
        token_id=token_id,
        name=name,
        role=role,
        created_at=tx.now,
        expires_at=tx.now + ttl if ttl else None,
        revoked_at=None,
    )
    values = {column.name: getattr(token, column.name) for column in TOKEN_COLUMNS}
    tx.connection.execute(insert(api_tokens).values(token_sha256=token_sha256, **values))
    record_audit(tx, actor=actor, action="token.create", subject=f"{token_id} {name} ({role})")
    return token


def list_tokens(tx: Transaction, *, after: Sequence[str] | None = None, limit: int | None = None) -> list[ApiToken]:
    """List tokens, oldest first."""
    page = select_page(select(*TOKEN_COLUMNS), api_tokens.c.token_id, after=after, limit=limit)
    rows = tx.connection.execute(page).mappings()
    return [ApiToken(**row) for row in rows]


def revoke_token(tx: Transaction, token_id: str, *, actor: str) -> None:
    """Revoke a token at once; one that was revoked before stays as it was. NotFound."""
    query = select(api_tokens.c.revoked_at).where(api_tokens.c.token_id == token_id).with_for_update()
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no token {token_id[:60]}", help="list the tokens to see their ids")
    if row.revoked_at is None:
        tx.connection.execute(update(api_tokens).where(api_tokens.c.token_id == token_id).values(revoked_at=tx.now))
        record_audit(tx, actor=actor, action="token.revoke", subject=token_id)


def find_role_caller(tx: Transaction, token_sha256: bytes) -> RoleCaller:
    """Find whom an API token stands for. TokenUnknown, TokenRevoked, TokenExpired: each says so, to whoever has the token."""
    row = tx.connection.execute(FIND_ROLE_CALLER, {"the_token": token_sha256}).one_or_none()
    if row is None:
        raise TokenUnknown("this API token is unknown here")
    if row.revoked_at is not None:
        raise TokenRevoked(f"the API token {row.name} was revoked on {row.revoked_at:%Y-%m-%d at %H:%M} UTC")
    if row.expires_at is not None and row.expires_at <= tx.now:
        raise TokenExpired(f"the API token {row.name} expired on {row.expires_at:%Y-%m-%d at %H:%M} UTC")
    return RoleCaller.with_role(row.name, row.role)


def record_audit(tx: Transaction, *, actor: str, action: str, subject: str, bucket_id: str | None = None) -> None:
    """Remember for good who did what, in the transaction that does it. Never pass a secret."""
    row = {
        "audit_id": new_id(),
        "time": tx.now,
        "actor": actor[:256],
        "action": action,
        "subject": subject,
        "bucket_id": bucket_id,
    }
    tx.connection.execute(insert(audit_records), row)


def list_audit_records(tx: Transaction, *, bucket_id: str, before_id: str, limit: int) -> list[AuditRecord]:
    """List acts, newest first: of one bucket or of all, before a record when a page came before."""
    query = select(*AUDIT_COLUMNS).order_by(audit_records.c.audit_id.desc()).limit(limit)
    if bucket_id:
        query = query.where(audit_records.c.bucket_id == bucket_id)
    if before_id:
        query = query.where(audit_records.c.audit_id < before_id)
    return [AuditRecord(**row) for row in tx.connection.execute(query).mappings()]
