"""Runs, their tasks, events, leases, and the hook invocations within them."""
