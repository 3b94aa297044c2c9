"""A bucket whose catalog is a fake, and the command line run inside the test's process."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from maand_cli.__main__ import run_command_line
from tests.command_line import Said
from tests.unit.cli.fake_catalog import FakeCatalog, serving_fake

BUCKET_ID = "11111111-2222-4333-8444-555555555555"


@dataclass(kw_only=True)
class Maand:
    """Runs commands in a bucket."""

    bucket: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *args: str) -> Said:
        """Run one command."""
        self.capture.readouterr()
        code = run_command_line(args)
        out, err = self.capture.readouterr()
        return Said(code=code, out=out, err=err)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a bucket directory and go there."""
    (tmp_path / "maand.conf").write_text(f'bucket_id = "{BUCKET_ID}"\nhook_env = ["PASSED_ON", "NOT_SET"]\n')
    (tmp_path / "workspace/jobs/api").mkdir(parents=True)
    (tmp_path / "workspace/jobs/api/manifest.json").write_text("{}")
    (tmp_path / "workspace/workers.json").write_text('[{"host": "10.0.0.1"}, {"host": "10.0.0.2"}]')
    (tmp_path / "secrets").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("MAAND_BUCKET", "RUN_ID", "BUCKET_ID", "NO_COLOR", "MAAND_EXECUTOR_ADDRESS", "MAAND_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCatalog]:
    """Serve a fake catalog and name it in the environment."""
    with serving_fake(tmp_path_factory.mktemp("fake")) as fake:
        monkeypatch.setenv("MAAND_CATALOG_ADDRESS", fake.address)
        yield fake


@pytest.fixture
def maand(bucket: Path, capsys: pytest.CaptureFixture[str]) -> Maand:
    """Give the command line."""
    return Maand(bucket=bucket, capture=capsys)
