"""A secret is readable where it is meant to be, and nowhere else: not in files, logs, events, or process arguments."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.maand import Bucket
from tests.testbed.worker import SshWorker

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(240)]

SECRET = "correct-horse/battery+staple 2026"

HOOK = """
import base64, sys, urllib.parse
from maand import get_kv_value
token = get_kv_value("secrets/job/api", "password")
print("plain", token)
print("base64", base64.b64encode(token.encode()).decode())
print("url", urllib.parse.quote(token))
sys.stdout.write("split " + token[:9]); sys.stdout.flush()
sys.stdout.write(token[9:] + "\\n"); sys.stdout.flush()
raise RuntimeError("cannot log in with " + token)
"""


def shapes(secret: str) -> list[bytes]:
    """Every shape in which the secret must not be found."""
    raw = secret.encode()
    return [raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode()]


def leaks(directory: Path, secret: str) -> list[str]:
    """Files below a directory that hold the secret in any shape."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [str(path.relative_to(directory)) for path in files if any(shape in path.read_bytes() for shape in shapes(secret))]


@contextmanager
def watching_process_arguments() -> Iterator[set[bytes]]:
    """Collect the command line of every process that lives meanwhile."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(entry.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    yield seen
    stop.set()
    watcher.join()


def test_a_known_secret_is_found_on_the_workers_and_nowhere_else(bucket: Bucket, workers: list[SshWorker]) -> None:
    bucket.write("workspace/jobs/api/password.j2", '{{ secret("password") }}')
    bucket.write("workspace/jobs/api/_hooks/hook_built.py", HOOK)
    manifest = bucket.path / "workspace/jobs/api/manifest.json"
    manifest.write_text(manifest.read_text().replace('["post_build"], "scope": "rollout"', '["cli"]'))
    bucket.must("build")
    bucket.must("secret", "set", "secrets/job/api", "password", stdin=SECRET)

    with watching_process_arguments() as arguments:
        deployed = bucket.must("deploy", "-vv")
        printed = bucket.must("hooks", "hook_built", "api", exit_code=1)

    everything = deployed.output + printed.output + bucket.must("runs", "show", "-o", "json").stdout
    assert "plain ***" in printed.output
    assert "base64 ***" in printed.output
    assert "url ***" in printed.output
    assert "split ***" in printed.output
    assert "cannot log in with ***" in printed.output
    assert not any(shape.decode() in everything for shape in shapes(SECRET))
    assert not [line for line in arguments if any(shape in line for shape in shapes(SECRET))]

    bucket.stop_services()
    assert leaks(bucket.path, SECRET) == []
    delivered = Path(workers[0].path("/opt/worker"))
    assert [path.rsplit("/", 1)[-1] for path in leaks(delivered, SECRET)] == ["password"]
