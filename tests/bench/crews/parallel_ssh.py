"""parallel-ssh as its documentation has it, run by the peers' python. One turn per line of input; connections are kept."""

import json
import sys

from pssh.clients import ParallelSSHClient  # type: ignore[import-not-found]  # lives in the peers' environment only

target = json.loads(sys.argv[1])
client = ParallelSSHClient(
    target["hosts"],
    user=target["user"],
    port=target["port"],
    pkey=target["key"],
    pool_size=target["at_once"],
    allow_agent=False,
)
for _line in sys.stdin:
    output = client.run_command("true")
    client.join(output)
    assert all(one.exit_code == 0 for one in output)
    print("done", flush=True)
