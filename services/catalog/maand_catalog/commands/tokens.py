"""`maand-catalog token …`: API tokens made, listed and revoked beside the database, by whoever may open that.

Needed for the first token, before anybody has one; later `TokenService` does the same for whoever has a token.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from maand_catalog.database.transaction import Transaction
from maand_catalog.ids import new_api_token, new_id
from maand_catalog.rules.identity import Role, token_digest
from maand_catalog.store.tokens import ApiToken, create_token, list_tokens, revoke_token

ACTOR = "maand-catalog token"
"""Whom audit records name."""

OnDatabase = Callable[[argparse.Namespace, Callable[[Transaction], Any]], Awaitable[Any]]
"""Carries out one intention on the database that the options, or the surroundings, name."""


def add_token_commands(parser: argparse.ArgumentParser, where: argparse.ArgumentParser, on_database: OnDatabase) -> None:
    """Add `create`, `list` and `revoke`; each names the coroutine that carries it out. `where`: options to name the database."""

    async def create(options: argparse.Namespace) -> None:
        secret = new_api_token()
        await on_database(options, lambda tx: create_asked_token(tx, options, secret))
        sys.stdout.write(secret + "\n")

    async def show(options: argparse.Namespace) -> None:
        now = datetime.now(tz=UTC)
        for token in await on_database(options, list_tokens):
            sys.stdout.write(describe_token(token, now=now) + "\n")

    async def revoke(options: argparse.Namespace) -> None:
        await on_database(options, lambda tx: revoke_token(tx, options.token_id, actor=f"{ACTOR} revoke"))
        sys.stderr.write(f"token {options.token_id} is refused from now on\n")

    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    asked = commands.add_parser("create", parents=[where], help="print a new API token once")
    asked.add_argument("--role", required=True, choices=[role.value for role in Role])
    asked.add_argument("--name", required=True, help="for people: who or what will use it")
    asked.add_argument("--ttl-days", type=int, default=0, help="days of validity, 0 = without end (the default)")
    asked.set_defaults(act=create)
    commands.add_parser("list", parents=[where], help="a line each: id, role, name, state").set_defaults(act=show)
    revoked = commands.add_parser("revoke", parents=[where], help="refuse a token from now on")
    revoked.add_argument("token_id", metavar="TOKEN_ID", help="as `token list` shows it")
    revoked.set_defaults(act=revoke)


def create_asked_token(tx: Transaction, options: argparse.Namespace, secret: str) -> ApiToken:
    """Remember the token that was asked for."""
    return create_token(
        tx,
        token_id=new_id(),
        token_sha256=token_digest(secret),
        name=options.name,
        role=Role(options.role),
        ttl=timedelta(days=options.ttl_days) or None,
        actor=f"{ACTOR} create",
    )


def describe_token(token: ApiToken, *, now: datetime) -> str:
    """Say in one line who has a token and what became of it; its secret is known to nobody any more."""
    state = "valid" if token.expires_at is None else f"valid until {token.expires_at:%Y-%m-%d %H:%M} UTC"
    if token.expires_at is not None and token.expires_at <= now:
        state = f"expired on {token.expires_at:%Y-%m-%d %H:%M} UTC"
    if token.revoked_at is not None:
        state = f"revoked on {token.revoked_at:%Y-%m-%d %H:%M} UTC"
    return f"{token.token_id}  {token.role:<8}  {token.name}  {state}"
