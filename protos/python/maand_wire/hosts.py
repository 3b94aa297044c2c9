"""One spelling for each host, so that one machine is one worker however it is written: in files, and on the command line."""

import ipaddress
import re

DNS_PART = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE | re.ASCII)


def normalize_host(text: str) -> str:
    """Return an address as RFC 5952 writes it, a DNS name in small letters without a dot at its end; empty for anything else.

    An IPv4 address in IPv6's clothes is that IPv4 address. An address with a zone is none: the zone names an interface here.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text.removesuffix(".").lower() if is_dns_name(text) else ""
    if isinstance(address, ipaddress.IPv6Address):
        return "" if address.scope_id is not None else str(address.ipv4_mapped or address)
    return str(address)


def is_link_local_with_zone(text: str) -> bool:
    """Whether this is an address that means something on one interface of this machine only: `fe80::1%eth0`."""
    try:
        return ipaddress.IPv6Address(text.strip("[]")).scope_id is not None
    except ValueError:
        return False


def is_dns_name(text: str) -> bool:
    """Whether a text is a host name; four numbers with dots are an address that went wrong."""
    parts = text.removesuffix(".").split(".")
    return all(DNS_PART.fullmatch(part) for part in parts) and not parts[-1].isdigit()
