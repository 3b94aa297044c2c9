"""All tables of the catalog: importing this module fills `metadata` from every `tables_<area>` module beside it."""

import importlib
import pkgutil
from pathlib import Path

from maand_catalog.store.metadata import metadata

__all__ = ["metadata"]

for _module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    if _module.name.startswith("tables_"):
        importlib.import_module(f"maand_catalog.store.{_module.name}")
