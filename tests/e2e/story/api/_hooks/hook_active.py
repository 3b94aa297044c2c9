"""Asks the worker's service manager whether the application is active."""

from maand import allocation_ip, run_ssh

result = run_ssh(allocation_ip(), "systemctl is-active myapp")
result.raise_for_status()
print("active:", result.stdout.strip())
