"""What everything in one executor shares, made once when it starts."""

from dataclasses import dataclass, field

from maand_executor.catalog_client import CatalogClient
from maand_executor.content.store import ContentStore
from maand_executor.hooks.engine import HookEngine
from maand_executor.output.masks import Masks
from maand_executor.rules.meter import Meter
from maand_executor.settings import ExecutorSettings
from maand_executor.ssh.remote import Remotes
from maand_wire.tracing import Tracer


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What all runs and tasks of one executor share."""

    executor_id: str
    settings: ExecutorSettings
    catalog: CatalogClient
    content: ContentStore
    hooks: HookEngine
    remotes: Remotes
    masks: Masks = field(default_factory=Masks)
    meter: Meter = field(default_factory=Meter)
    tracer: Tracer | None = None
