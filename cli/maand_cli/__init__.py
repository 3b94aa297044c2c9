"""The command line: parse, call, follow, print. It decides nothing that a service could decide."""

__version__ = "0.1.0"
"""Equals the distribution's version (a test proves it); written here because asking the metadata costs 20 ms a start."""
