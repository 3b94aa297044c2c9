"""Bare asyncssh, the yardstick: key and host keys parsed once, connections kept, nothing else. One turn per line of input."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncssh


async def main(target: dict[str, Any], known_hosts: asyncssh.SSHKnownHosts) -> None:
    """Answer turn by turn."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    options = asyncssh.SSHClientConnectionOptions(
        username=target["user"],
        client_keys=[asyncssh.read_private_key(target["key"])],
        known_hosts=known_hosts,
        config=None,
        agent_path=None,
        kex_algs=[target["kex"]],
        encryption_algs=[target["cipher"]],
        compression_algs=["none"],
    )
    slots, connections = asyncio.Semaphore(target["at_once"]), {}

    async def one(host: str) -> None:
        async with slots:
            if host not in connections:
                connections[host] = await asyncssh.connect(host, target["port"], options=options)
            done = await connections[host].run("true")
            assert done.exit_status == 0

    while await lines.readline():
        await asyncio.gather(*(one(host) for host in target["hosts"]))
        print("done", flush=True)
    for connection in connections.values():
        connection.abort()


facts = json.loads(sys.argv[1])
asyncio.run(main(facts, asyncssh.import_known_hosts(Path(facts["known_hosts"]).read_text())))
