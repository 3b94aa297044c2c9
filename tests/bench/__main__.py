"""`python -m tests.bench` runs every bench, each in a process of its own; `python -m tests.bench NAME [options]` runs one.

python -m tests.bench --list            what there is
python -m tests.bench ssh-warm --help   the options of one
"""

import importlib
import subprocess
import sys

from tests.bench.rounds import load_told

BENCHES = {
    "cli": "start of the command line: --help, a read, services start",
    "ssh-cold": "`true` on 300 workers, connections closed: whole path, asyncssh, ssh, parallel-ssh, pyinfra",
    "ssh-warm": "`true` on 100 workers, connections open: whole path, ControlMaster, parallel-ssh, ansible; memory",
    "ssh-copy": "one changed file to 50 workers: maand, rsync over warm ControlMasters",
    "deploy": "1,000 allocations: nothing to do; 100 changed",
    "hooks": "starts of hooks against bare python",
    "hook-api": "HTTP to gRPC to database, against bare FastAPI before bare gRPC",
    "catalog": "KV and semaphores at 1, 16, 64 clients on both databases, against etcd",
    "switch-interval": "what sys.setswitchinterval does for the catalog on SQLite",
    "cluster": "fan-out with 1 and 2 executors, puts with 1 and 2 catalogs, all on one machine",
    "build": "a workspace of 200 jobs on 50 workers: first, unchanged, changed",
}


def main(arguments: list[str]) -> int:
    """Run what is asked for and return the exit code."""
    if arguments[:1] == ["--list"]:
        print("\n".join(f"{name:16} {line}" for name, line in BENCHES.items()))
        return 0
    if not arguments:
        return run_all()
    name, *options = arguments
    if name not in BENCHES:
        print(f"there is no bench {name!r}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"tests.bench.bench_{name.replace('-', '_')}")
    with load_told(name):
        module.main(options)
    return 0


def run_all() -> int:
    """Run one bench after the other; one that fails does not keep the others from running."""
    ended = {name: subprocess.run([sys.executable, "-m", "tests.bench", name], check=False).returncode for name in BENCHES}
    failed = [name for name, code in ended.items() if code]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
