"""Notes on the worker that its allocation was stopped, and whether it was disabled."""

from maand import allocation_ip, is_allocation_disabled, run_ssh

word = "disabled" if is_allocation_disabled() else "removed"
run_ssh(allocation_ip(), f"echo {word} | sudo tee -a /opt/stopped >/dev/null")
