"""The import contracts of pyproject.toml refuse what they are there for: made in a copy of the product, each fault is named."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "protos/python/maand_contracts", "protos/python/maand_wire", "services/catalog/maand_catalog",
    "services/executor/maand_executor", "services/runtime_gateway/maand_runtime_gateway", "services/local/maand_local",
    "cli/maand_cli", "sdk/maand_hook_sdk", "sdk/maand_client",
)  # fmt: skip


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """Return a copy of all packages side by side, with the contracts."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken_contracts(product: Path) -> set[str]:
    """Return the names of the contracts that do not hold."""
    program = Path(sysconfig.get_path("scripts"), "lint-imports")
    done = subprocess.run(
        [sys.executable, program, "--no-cache"],
        cwd=product,
        env={**os.environ, "PYTHONPATH": str(product), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.partition("BROKEN")[0].strip() for line in done.stdout.splitlines() if " BROKEN" in line]
    assert bool(lines) == (done.returncode != 0), done.stdout + done.stderr
    return set(lines)


def add(module: Path, line: str) -> None:
    """Add an import at the end of a module, which is made when it is not there."""
    module.write_text((module.read_text() if module.exists() else "") + f"\n{line}\n")


def test_the_contracts_hold_as_the_product_is(product: Path) -> None:
    assert broken_contracts(product) == set()


def test_circles_upward_imports_and_impure_rules_are_refused(product: Path) -> None:
    add(product / "maand_executor/steps/task_loops.py", "from maand_executor.steps import context")
    add(product / "maand_catalog/store/runs/run_states.py", "from maand_catalog.serving import upkeep")
    add(product / "maand_catalog/store/tokens.py", "from maand_catalog.store.kv import rows")
    add(product / "maand_catalog/rules/build/brand_new.py", "import grpc")
    add(product / "maand_executor/rules/brand_new.py", "import asyncssh")
    add(product / "maand_cli/output/text.py", "from maand_cli.runs import follow")
    add(product / "maand_runtime_gateway/upstream.py", "from maand_runtime_gateway import middleware")
    assert broken_contracts(product) == {
        "No circles, in any folder",
        "Layers of the catalog: imports point downwards",
        "Nouns of the catalog's store: imports point downwards",
        "Rules of the catalog import the standard library only",
        "Each outside library is named in one place of the executor",
        "Rules of the executor import the standard library only",
        "Layers of the command line: imports point downwards",
        "Layers of the gateway: imports point downwards",
    }


def test_a_new_module_must_find_its_layer(product: Path) -> None:
    add(product / "maand_catalog/loose.py", "VALUE = 1")
    assert broken_contracts(product) == {"Layers of the catalog: imports point downwards"}
