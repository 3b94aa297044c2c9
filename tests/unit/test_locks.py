"""The locks of the images agree with the lock that everything is tested with."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^ ;\\]+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("service", ["catalog", "executor", "runtime_gateway"])
def test_an_image_installs_what_was_tested(service: str) -> None:
    tested = pins(ROOT / "requirements.lock")
    shipped = pins(ROOT / "services" / service / "requirements.lock")
    assert shipped, "the lock is empty"
    assert {name: version for name, version in shipped.items() if tested.get(name) != version} == {}, "run: make lock"


@pytest.mark.parametrize(
    ("service", "needed", "foreign"),
    [
        ("catalog", "sqlalchemy", "asyncssh"),
        ("executor", "asyncssh", "sqlalchemy"),
        ("runtime_gateway", "fastapi", "sqlalchemy"),
    ],
)
def test_an_image_installs_only_what_its_service_needs(service: str, needed: str, foreign: str) -> None:
    shipped = pins(ROOT / "services" / service / "requirements.lock")
    assert needed in shipped
    assert foreign not in shipped
