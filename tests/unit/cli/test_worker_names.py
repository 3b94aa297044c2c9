"""Workers on the command line are spelled as builds spell them."""

import pytest

from maand_cli.errors import Usage
from maand_cli.options import spell_worker


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("[::1]", "::1"),
        ("FD77::2", "fd77::2"),
        ("Web1.Example.com.", "web1.example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("no host", "no host"),
    ],
)
def test_a_worker_is_named_in_any_spelling(typed: str, meant: str) -> None:
    assert spell_worker(typed) == meant


@pytest.mark.parametrize("typed", ["fe80::1%eth0", "[fe80::1%eth0]"])
def test_link_local_workers_cannot_be_named(typed: str) -> None:
    with pytest.raises(Usage, match="link-local"):
        spell_worker(typed)
