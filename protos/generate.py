"""Generate the Python contracts from the `.proto` files, into `protos/python/maand_contracts`.

    generate.py            regenerate (make contracts)
    generate.py --check    compare with what is committed (make lint); exit 1 when they differ

Generated files are committed and never edited.
"""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMITTED = HERE / "python"


def main() -> None:
    """Generate into a temporary directory, then compare or replace."""
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        generate(fresh)
        if "--check" in sys.argv[1:]:
            check(fresh / "maand_contracts")
        else:
            replace(fresh / "maand_contracts")


def generate(out: Path) -> None:
    """Run protoc twice (messages; services, where there are any) and make the result a package."""
    protos = sorted(path.relative_to(HERE) for path in (HERE / "maand_contracts").rglob("*.proto"))
    run_protoc([f"--python_out={out}", f"--mypy_out=quiet:{out}"], protos)
    services = [path for path in protos if has_service(path)]
    run_protoc([f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet,only_async:{out}"], services)
    package = out / "maand_contracts"
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text('"""Generated from protos/maand_contracts; never edited."""\n')
    (package / "py.typed").touch()


def has_service(proto: Path) -> bool:
    """Tell whether a file declares a service; only those get a `_pb2_grpc` module."""
    return any(line.startswith("service ") for line in (HERE / proto).read_text().splitlines())


def run_protoc(outputs: list[str], protos: list[Path]) -> None:
    """Run protoc with the plug-ins of this interpreter's environment, which it finds on PATH only."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *map(str, protos)]
    subprocess.run(command, cwd=HERE, env=environment, check=True)


def check(fresh: Path) -> None:
    """Exit 1, naming the files, when the committed contracts are not what the `.proto` files generate."""
    committed = COMMITTED / "maand_contracts"
    names = {path.relative_to(root) for root in (fresh, committed) for path in root.rglob("*.py*") if path.suffix != ".pyc"}
    differing = sorted(str(name) for name in names if not same(fresh / name, committed / name))
    if differing:
        sys.exit(
            "error: generated contracts differ: " + ", ".join(differing) + "\n  help: run 'make contracts' and commit the result"
        )


def same(one: Path, other: Path) -> bool:
    """Tell whether both files exist with equal content."""
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def replace(fresh: Path) -> None:
    """Put the fresh package where the committed one was."""
    shutil.rmtree(COMMITTED / "maand_contracts", ignore_errors=True)
    shutil.copytree(fresh, COMMITTED / "maand_contracts")


if __name__ == "__main__":
    main()
