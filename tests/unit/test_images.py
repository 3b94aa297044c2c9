"""The Dockerfiles of the services say the same where they should."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ["catalog", "executor", "runtime_gateway"]


def dockerfile(service: str) -> str:
    return (ROOT / "services" / service / "Dockerfile").read_text()


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_is_labelled_with_the_version_it_holds(service: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in dockerfile(service)


@pytest.mark.parametrize("service", SERVICES)
def test_the_stage_that_is_shipped_knows_no_index_and_copies_only_what_was_installed(service: str) -> None:
    build, shipped = re.split(r"^FROM \$\{BASE\}$", dockerfile(service), flags=re.MULTILINE)
    assert "ARG PIP_INDEX_URL" in build
    assert re.findall(r"^(?:ARG|COPY|ADD) .*", shipped, re.MULTILINE) == ["COPY --from=build /opt/maand /opt/maand"]
    assert "pip" not in shipped
