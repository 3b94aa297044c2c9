"""Asks the worker's service manager, over SSH, whether the service is active."""

from maand import allocation_ip, run_ssh

result = run_ssh(allocation_ip(), "systemctl is-active myapp")
result.raise_for_status()
print("systemctl says", result.stdout.strip())
