"""Who makes the call that is being handled. The identity interceptor says it once; handlers ask here.

let_in(caller)         said by the interceptor
acting_as(caller)      for tests that call a servicer without a server
caller_of(context)     anyone who was let in
require(context, …)    a person or service with one of the roles
require_hook(context)  a hook invocation
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from maand_catalog.errors import PermissionDenied, Unauthenticated
from maand_catalog.rules.identity import Caller, HookCaller, Role, RoleCaller

_caller: ContextVar[Caller] = ContextVar("maand_caller")


def let_in(caller: Caller) -> None:
    """Let the rest of this call be done by this caller. Every call has a task, and so a context, of its own."""
    _caller.set(caller)


@contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Let everything inside be done by this caller."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def caller_of(context: Any) -> Caller:
    """Return who makes this call."""
    caller = _caller.get(None)
    if caller is None:
        raise Unauthenticated("this call carries no identity")
    return caller


def require_role(context: Any, *roles: Role) -> RoleCaller:
    """Return the caller when it has one of these roles; PermissionDenied for hooks and other roles."""
    caller = caller_of(context)
    wanted = " or ".join(roles)
    if isinstance(caller, HookCaller):
        raise PermissionDenied(f"a hook may not do this; it needs the role {wanted}")
    if not caller.roles.intersection(roles):
        raise PermissionDenied(f"{caller.name} may not do this; it needs the role {wanted}")
    return caller


def require_hook(context: Any) -> HookCaller:
    """Return the hook invocation that calls; PermissionDenied for people and services."""
    caller = caller_of(context)
    if not isinstance(caller, HookCaller):
        raise PermissionDenied(f"only a running hook may do this, {caller.name} is none")
    return caller
