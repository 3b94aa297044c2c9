"""Semaphores: who holds a slot, and who waits in line for one."""
