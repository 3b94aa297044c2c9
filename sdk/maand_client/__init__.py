"""A typed asyncio client of maand's catalog, for services that are neither the command line nor a hook.

    from maand_client import connect, specs

    async with connect("catalog:7600", bucket_id, ca=Path("ca.crt"), token_file=Path("token")) as maand:
        run = await maand.runs.start(specs.run_command("uptime", labels=["db"]))
        async for event in run.events():            # goes on at another replica when one is lost
            print(event.worker, event.WhichOneof("event"))
        (await run.wait()).raise_for_state()

        entry = await maand.kv.get("vars/job/api", "leader")
        await maand.kv.put("vars/job/api", "leader", "10.0.0.2", if_version=entry.version)

Errors are classes by meaning (`maand_client.errors`). What a program decides on (an entry, a run's end, a semaphore) is a frozen
value; long descriptions (events, workers, jobs, allocations) are the contract's own messages, see docs/grpc-api.md.
"""

from maand_client import errors, specs
from maand_client.connection import Client, connect
from maand_client.errors import MaandError
from maand_client.kv import Entry, Written
from maand_client.run_ends import Ended, Failure
from maand_client.runs import Run, RunOptions
from maand_client.secrets import Secret
from maand_client.semaphores import Claim, Grant, Semaphore

__all__ = [
    "Claim",
    "Client",
    "Ended",
    "Entry",
    "Failure",
    "Grant",
    "MaandError",
    "Run",
    "RunOptions",
    "Secret",
    "Semaphore",
    "Written",
    "connect",
    "errors",
    "specs",
]
