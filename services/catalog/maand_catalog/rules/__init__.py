"""What the catalog decides, as values and functions of the standard library only: no IO, no clock, no outside library.

workspace/   what people write, as frozen facts          build/   what a build makes of it
the rest     KV, namespaces and who may read them, semaphores, runs and their tasks, callers
"""
