"""The local host: catalog, executor and runtime gateway of one bucket in one process, started by the first `maand` command.

It is the only part that knows all three services, and it knows only how to start them, that they are idle, and how to stop them.
"""
