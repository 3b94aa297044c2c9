"""What the work of one run is given: who it is, what was asked, and the parts it may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from maand_contracts.catalog.v1 import run_spec_pb2
from maand_executor.cancel import CancelSignal
from maand_executor.catalog_client import CatalogClient
from maand_executor.facts import BucketConfig, RunIdentity


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """One claimed run while it is carried out."""

    identity: RunIdentity
    kind: str
    spec: run_spec_pb2.RunSpec
    config: BucketConfig
    catalog: CatalogClient
    cancel: CancelSignal
    hook_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    requested_by: str = ""
