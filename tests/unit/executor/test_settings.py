"""Settings come from the environment, and the documentation names every variable."""

import inspect
import re
from pathlib import Path

import pytest

from maand_executor import settings
from maand_executor.settings import ExecutorSettings
from maand_wire.endpoints import EndpointError

LEAST = {"MAAND_CATALOG_ADDRESS": "unix:/c", "MAAND_SECRETS_DIR": "/secrets", "MAAND_STATE_DIR": "/state"}


def test_three_variables_are_enough() -> None:
    made = ExecutorSettings.from_environment(LEAST)
    assert made.listen == "127.0.0.1:7601"
    assert made.catalog.address == "unix:/c"
    assert (made.secrets_dir, made.state_dir) == (Path("/secrets"), Path("/state"))
    assert made.hook_api == "127.0.0.1:8080"
    assert made.workspace_dir is None
    assert made.bucket_ids == ()


def test_the_others_may_be_set() -> None:
    more = {"MAAND_WORKSPACE_DIR": "/w", "MAAND_HOOK_API": "127.0.0.1:9", "MAAND_BUCKET_IDS": "a,b"}
    made = ExecutorSettings.from_environment({**LEAST, **more})
    assert (made.workspace_dir, made.hook_api, made.bucket_ids) == (Path("/w"), "127.0.0.1:9", ("a", "b"))


def test_hook_processes_are_a_whole_number() -> None:
    assert ExecutorSettings.from_environment(LEAST).work.hook_processes == 0
    assert ExecutorSettings.from_environment({**LEAST, "MAAND_HOOK_PROCESSES": "7"}).work.hook_processes == 7
    for wrong in ("many", "-1", "1.5", "٣"):
        with pytest.raises(EndpointError, match="MAAND_HOOK_PROCESSES is not a whole number"):
            ExecutorSettings.from_environment({**LEAST, "MAAND_HOOK_PROCESSES": wrong})


@pytest.mark.parametrize("missing", LEAST)
def test_a_missing_variable_is_named(missing: str) -> None:
    with pytest.raises(EndpointError, match=missing):
        ExecutorSettings.from_environment({name: value for name, value in LEAST.items() if name != missing})


def test_every_variable_that_is_read_is_documented() -> None:
    source = inspect.getsource(ExecutorSettings.from_environment) + inspect.getsource(settings.read_hook_processes)
    documentation = inspect.getdoc(settings) or ""
    assert set(re.findall(r"MAAND_[A-Z_]+", source)) <= set(re.findall(r"MAAND_[A-Z_]+", documentation))


def test_the_lease_is_given_up_before_anybody_may_take_the_run_over() -> None:
    lease = settings.LeaseSettings()
    assert lease.give_up_at < 1
    assert lease.renew_every.total_seconds() * 4 <= 15 * lease.give_up_at
