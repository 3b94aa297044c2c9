"""Generate the Python contracts from the `.proto` files, into `protos/python/maand_contracts`.

Run through `make contracts`; CI runs it again and compares. Generated files are committed and never edited.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "python" / "maand_contracts"


def main() -> None:
    """Remove what was generated before, run protoc twice, make the result a package."""
    protos = sorted(path.relative_to(HERE) for path in (HERE / "maand_contracts").rglob("*.proto"))
    shutil.rmtree(OUT, ignore_errors=True)
    run_protoc(["--python_out=python", "--mypy_out=quiet:python"], protos)
    run_protoc(["--grpc_python_out=python", "--mypy_grpc_out=quiet,only_async:python"], [p for p in protos if has_service(p)])
    for directory in [OUT, *(path for path in OUT.rglob("*") if path.is_dir())]:
        (directory / "__init__.py").write_text('"""Generated from protos/maand_contracts; never edited."""\n')
    (OUT / "py.typed").touch()


def has_service(proto: Path) -> bool:
    """Tell whether a file declares a service; only those get a `_pb2_grpc` module."""
    return any(line.startswith("service ") for line in (HERE / proto).read_text().splitlines())


def run_protoc(outputs: list[str], protos: list[Path]) -> None:
    """Run protoc with the plug-ins of this interpreter's environment, which it finds on PATH only."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *map(str, protos)]
    subprocess.run(command, cwd=HERE, env=environment, check=True)


if __name__ == "__main__":
    main()
