"""What a catalog reads from its environment."""

from datetime import timedelta
from pathlib import Path

import pytest

from maand_catalog.settings import BadSetting, CatalogSettings, MissingSetting
from maand_catalog.store.runs.retention import Retention

NEEDED = {"MAAND_DATABASE_URL": "sqlite:////data/maand.db", "MAAND_KV_KEY_FILE": "/keys/kv.key", "MAAND_CA_DIR": "/keys/ca"}


def test_what_is_needed_is_enough() -> None:
    settings = CatalogSettings.from_environment(NEEDED)

    assert (settings.database_url, settings.kv_key_file, settings.ca_dir) == (
        "sqlite:////data/maand.db",
        Path("/keys/kv.key"),
        Path("/keys/ca"),
    )
    assert settings.retention == Retention(newest_runs=100, younger_than=timedelta(days=30))
    assert (settings.services_listen, settings.tls, settings.metrics_listen) == (None, None, None)


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_missing_is_named_with_an_example(name: str) -> None:
    with pytest.raises(MissingSetting, match=f"{name} is not set") as caught:
        CatalogSettings.from_environment({**NEEDED, name: ""})
    assert f"{name}=" in caught.value.help


def test_how_long_events_are_kept_is_a_setting() -> None:
    settings = CatalogSettings.from_environment({**NEEDED, "MAAND_EVENTS_KEEP_RUNS": "5", "MAAND_EVENTS_KEEP_DAYS": "0"})

    assert settings.retention == Retention(newest_runs=5, younger_than=timedelta(0))


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "9" * 7, "٣"])
def test_a_number_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(BadSetting, match="MAAND_EVENTS_KEEP_DAYS is not a whole number"):
        CatalogSettings.from_environment({**NEEDED, "MAAND_EVENTS_KEEP_DAYS": value})
