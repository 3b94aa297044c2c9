"""TokenService: API tokens of people and services, and the audit trail. For operators."""

from datetime import timedelta
from typing import Any

from maand_catalog.database.database import Database
from maand_catalog.errors import InvalidArgument
from maand_catalog.ids import new_api_token, new_id
from maand_catalog.rpc.callers import require_role
from maand_catalog.rpc.requests import asked_page, checked_id, checked_text
from maand_catalog.rules.identity import Role, token_digest
from maand_catalog.store import tokens
from maand_contracts.catalog.v1 import token_pb2 as pb
from maand_contracts.catalog.v1.token_pb2_grpc import TokenServiceServicer
from maand_wire.conversions import message_writer

LONGEST_TTL_SECONDS = 10 * 365 * 24 * 3600

ROLES: dict[Role, pb.Role.ValueType] = {
    Role.VIEWER: pb.ROLE_VIEWER,
    Role.OPERATOR: pb.ROLE_OPERATOR,
    Role.EXECUTOR: pb.ROLE_EXECUTOR,
    Role.GATEWAY: pb.ROLE_GATEWAY,
}
ROLE_BY_NUMBER: dict[int, Role] = {number: role for role, number in ROLES.items()}


class TokenServicer(TokenServiceServicer):
    """Manages API tokens; what is done with them is audited."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        """Create a token and show it, this once."""
        caller = require_role(context, Role.OPERATOR)
        name, role = checked_text(request.name, "name", longest=256, required=True), ROLE_BY_NUMBER.get(request.role)
        if role is None:
            raise InvalidArgument("role names none", help=f"choose one of {', '.join(Role)}", facts={"field": "role"})
        if request.ttl_seconds > LONGEST_TTL_SECONDS:
            raise InvalidArgument("ttl_seconds is more than ten years; 0 means without end", facts={"field": "ttl_seconds"})
        token_id, secret, ttl = new_id(), new_api_token(), timedelta(seconds=request.ttl_seconds) or None
        token = await self._database.write(
            lambda tx: tokens.create_token(
                tx, token_id=token_id, token_sha256=token_digest(secret), name=name, role=role, ttl=ttl, actor=caller.name
            )
        )
        return pb.CreateTokenResponse(token=token_message(token), secret=secret)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        """List tokens without their secret part."""
        require_role(context, Role.OPERATOR)
        page = asked_page(request, str, usual=1_000)
        listed = await self._database.read(lambda tx: tokens.list_tokens(tx, after=page.after, limit=page.limit + 1))
        found, more = page.cut(listed, lambda last: (last.token_id,))
        return pb.ListTokensResponse(tokens=map(token_message, found), next_page_token=more)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        """Revoke a token at once."""
        caller = require_role(context, Role.OPERATOR)
        await self._database.write(lambda tx: tokens.revoke_token(tx, request.token_id, actor=caller.name))
        return pb.RevokeTokenResponse()

    async def ListAuditRecords(self, request: pb.ListAuditRecordsRequest, context: Any) -> pb.ListAuditRecordsResponse:
        """List audit rows, newest first."""
        require_role(context, Role.OPERATOR)
        page = asked_page(request, str, usual=100)
        before = checked_id(page.after[0], "page_token") if page.after else ""
        records = await self._database.read(
            lambda tx: tokens.list_audit_records(tx, bucket_id=request.bucket_id, before_id=before, limit=page.limit + 1)
        )
        found, more = page.cut(records, lambda last: (last.audit_id,))
        return pb.ListAuditRecordsResponse(records=map(audit_message, found), next_page_token=more)


token_message = message_writer(pb.Token, tokens.ApiToken)


audit_message = message_writer(pb.AuditRecord, tokens.AuditRecord, bucket_id=lambda record: record.bucket_id or "")
