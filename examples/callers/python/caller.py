"""A service that lists workers, runs a command on them, follows it to its end, and counts how often it did.

python caller.py COMMAND      see ../README.md for the variables it reads
"""

import asyncio
import os
import sys
from pathlib import Path

from maand_client import Client, MaandError, connect, specs
from maand_client.errors import LostRace, NotFound


async def main(command: str) -> None:
    async with connect(
        os.environ["MAAND_CATALOG_ADDRESS"].split(","),
        os.environ["BUCKET_ID"],
        ca=Path(os.environ["MAAND_TLS_CA"]),
        token_file=Path(os.environ["MAAND_API_TOKEN_FILE"]),
    ) as maand:
        for worker in await maand.fleet.workers():
            print("worker", worker.name)
        await run_everywhere(maand, command)
        print("counted", await count(maand, "vars/callers", "caller_runs"))


async def run_everywhere(maand: Client, command: str) -> None:
    run = await maand.runs.start(specs.run_command(command))
    async for event in run.events():  # a lost catalog is not noticed here: the next one goes on after the last event
        for line in event.output.lines:
            print(event.worker, "|", line)
    (await run.wait()).raise_for_state()


async def count(maand: Client, namespace: str, key: str) -> int:
    while True:
        try:
            entry = await maand.kv.get(namespace, key)
            value, condition = int(entry.value) + 1, {"if_version": entry.version}
        except NotFound:
            value, condition = 1, {"if_absent": True}
        try:
            await maand.kv.put(namespace, key, str(value), **condition)
        except LostRace:  # somebody else counted meanwhile: read again, decide again
            continue
        return value


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1]))
    except MaandError as error:
        sys.exit(f"error ({error.code}): {error}\n  help: {error.help}")
