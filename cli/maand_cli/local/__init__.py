"""A bucket on this machine: its folder and keys, the workspace in it, its services, and contexts that name other clusters."""
