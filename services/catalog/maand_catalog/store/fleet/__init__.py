"""Buckets, workspaces and their snapshots; workers, jobs and allocations as they were built."""
