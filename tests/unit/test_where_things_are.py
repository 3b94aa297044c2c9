"""docs/where-things-are.md is true: files exist and define the names. tests/integration/executor/test_routes.py sees them run."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/where-things-are.md").read_text()
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \|", re.MULTILINE)
ROUTES = {section.splitlines()[0]: ROW.findall(section) for section in PAGE.split("\n## ")[1:]}
ROWS = [row for rows in ROUTES.values() for row in rows]
KEY = "max_concurrent_upgrades"


def names_in(path: Path) -> set[str]:
    """Return what a module defines: functions, classes, methods, constants; or the messages of a contract."""
    if path.suffix == ".proto":
        return set(re.findall(r"^message (\w+)", path.read_text(), re.MULTILINE))
    tree = ast.parse(path.read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_three_routes_are_told() -> None:
    assert [len(rows) >= 10 for rows in ROUTES.values()] == [True, True, True]


@pytest.mark.parametrize(("path", "name"), ROWS)
def test_a_row_names_what_is_there(path: str, name: str) -> None:
    assert name in names_in(ROOT / path), f"{path} does not define {name}"


def test_a_manifest_key_is_named_in_these_files_and_in_no_other() -> None:
    found = subprocess.run(
        ["git", "grep", "-lw", KEY, "--", "services", "cli", "sdk", "protos/maand_contracts"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    (rows,) = (rows for route, rows in ROUTES.items() if KEY in route)
    told = {path for path, _ in rows if KEY in (ROOT / path).read_text()}
    others = [path for path in found if path not in told and "demo/bucket" not in path]
    assert len(told) == 5, sorted(told)
    assert [path for path in others if Path(path).name not in PAGE] == []
