"""One spelling for each host."""

import pytest

from maand_wire.hosts import is_link_local_with_zone, normalize_host


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("FD77::2", "fd77::2"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("Web1.example.com.", "web1.example.com"),
        ("LOCALHOST", "localhost"),
        ("10.0.0.01", ""),
        ("10.0.0.999", ""),
        ("[::1]", ""),
        ("fe80::1%eth0", ""),
        ("web1..com", ""),
        ("", ""),
    ],
)
def test_a_host_has_one_spelling(written: str, spelled: str) -> None:
    assert normalize_host(written) == spelled
    assert normalize_host(spelled) == spelled


def test_only_an_address_with_a_zone_is_link_local_here() -> None:
    assert is_link_local_with_zone("fe80::1%eth0")
    assert is_link_local_with_zone("[fe80::1%eth0]")
    assert not is_link_local_with_zone("fe80::1")
    assert not is_link_local_with_zone("web%1")
