"""Names that people choose: jobs, ports, hooks, labels, hosts, certificates. One rule and one error each."""

import ipaddress
import re

from maand_catalog.rules.workspace.problems import Rejected
from maand_wire.hosts import is_link_local_with_zone, normalize_host

JOB = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
PORT = re.compile(r"[a-z][a-z0-9_]*")
HOOK = re.compile(r"hook_[a-z0-9_]+")
LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
CERTIFICATE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
LONGEST_NAME = 200
"""Longest name of any kind, so that it fits a KV key with what build puts around it."""

LONGEST_HOST = 175
"""With the longest job name it still fits a KV namespace: `maand/job/<63>/worker/<175>` has 256 characters."""


def checked_job_name(text: str) -> str:
    """Accept the name of a job."""
    return checked_shape(
        JOB, text, "bad_job_name", "a job", 'lower-case letters, digits, "_" and "-", at most 63, no leading "_" or "-"'
    )


def checked_port_name(text: str) -> str:
    """Accept the name of a port."""
    return checked_shape(PORT, text, "bad_port_name", "a port", 'lower-case letters, digits and "_", beginning with a letter')


def checked_hook_name(text: str) -> str:
    """Accept the name of a hook."""
    return checked_shape(HOOK, text, "bad_hook_name", "a hook", '"hook_" and then lower-case letters, digits and "_"')


def checked_label(text: str) -> str:
    """Accept a worker's label, which is also a job's selector."""
    return checked_shape(LABEL, text, "bad_label", "a label", 'lower-case letters, digits, "_", "-" and "."')


def checked_certificate_name(text: str) -> str:
    """Accept the name of a certificate: it becomes a file name."""
    return checked_shape(
        CERTIFICATE, text, "bad_certificate_name", "a certificate", 'lower-case letters, digits, "_", "-" and "."'
    )


def checked_host(text: str) -> str:
    """Accept an IP address or a DNS name, and return it in the one spelling that stands for all of them.

    Addresses are written as RFC 5952 says, names in small letters without a dot at the end.
    """
    if len(text) <= LONGEST_HOST and (host := normalize_host(text)):
        return host
    if is_link_local_with_zone(text):
        raise Rejected(
            "link_local_host",
            f'"{text[:60]}" names an interface of this machine: workers cannot be named by link-local addresses',
            help="give the worker a routable address, or a DNS name",
        )
    raise Rejected(
        "bad_host", f'"{text[:60]}" is neither an IP address nor a DNS name', help='for example "10.0.0.1" or "db1.internal"'
    )


def checked_user(text: str) -> str:
    """Accept the name of a user on a worker; empty = the usual one."""
    if not text or (len(text) <= LONGEST_NAME and text.isprintable() and not text.startswith("-") and " " not in text):
        return text
    raise Rejected("bad_user", f'"{text[:60]}" cannot be the name of a user')


def checked_subject_part(text: str) -> str:
    """Accept a part of a certificate's subject; X.509 counts bytes."""
    if text.strip() and len(text.encode()) <= 64 and text.isprintable():
        return text
    raise Rejected("bad_subject", "a part of a subject has 1 to 64 bytes and no control characters")


def checked_country(text: str) -> str:
    """Accept a country code."""
    if len(text) == 2 and text.isascii() and text.isalpha():
        return text
    raise Rejected("bad_subject", f'"{text[:60]}" is not a country code', help='write two letters, for example "DE"')


def checked_tag(text: str) -> str:
    """Accept the name of a tag: it becomes a KV key."""
    if text.strip() and len(text) <= LONGEST_NAME and text.isprintable():
        return text
    raise Rejected("bad_tag", f"a tag has 1 to {LONGEST_NAME} characters and no control characters")


def is_address(text: str) -> bool:
    """Whether a host is an IP address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def checked_shape(shape: re.Pattern[str], text: str, code: str, noun: str, rule: str) -> str:
    """Return the text when it has the shape; else say the rule."""
    if shape.fullmatch(text) and len(text) <= LONGEST_NAME:
        return text
    raise Rejected(code, f'"{text[:60]}" cannot be the name of {noun}', help=f"use {rule}")
