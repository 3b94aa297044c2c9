"""Every gRPC service of the catalog, put together from its parts and added to a server."""

from dataclasses import dataclass

import grpc.aio

from maand_catalog.keyring import Keyring
from maand_catalog.rpc.hook_env import HookEnvSealer
from maand_catalog.rpc.invocations import InvocationServicer
from maand_catalog.rpc.runs import RunServicer
from maand_catalog.rpc.tokens import TokenServicer
from maand_catalog.settings import CatalogSettings
from maand_catalog.store.database import Database
from maand_contracts.catalog.v1 import invocation_pb2, run_pb2, token_pb2
from maand_contracts.catalog.v1.invocation_pb2_grpc import add_InvocationServiceServicer_to_server
from maand_contracts.catalog.v1.run_pb2_grpc import add_RunServiceServicer_to_server
from maand_contracts.catalog.v1.token_pb2_grpc import add_TokenServiceServicer_to_server


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What servicers are made of."""

    database: Database
    keyring: Keyring
    settings: CatalogSettings


def add_services(server: grpc.aio.Server, parts: Parts) -> list[str]:
    """Add every service and return their full names, for health and reflection."""
    database = parts.database
    add_RunServiceServicer_to_server(RunServicer(database, HookEnvSealer(parts.keyring), lease=parts.settings.lease), server)
    add_InvocationServiceServicer_to_server(InvocationServicer(database), server)
    add_TokenServiceServicer_to_server(TokenServicer(database), server)
    modules = (run_pb2, invocation_pb2, token_pb2)
    return [service.full_name for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
