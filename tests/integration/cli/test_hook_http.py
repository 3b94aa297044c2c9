"""A hook that asks its worker for a tunnel, or for answers that never come, on real local services: all of them go on."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.integration.cli.conftest import Maand

pytestmark = pytest.mark.timeout(120)

WORKER = "127.0.0.9"
MANIFEST = {"version": "1.0.0", "selectors": ["worker"], "hooks": {"hook_c": {"executed_on": ["cli"]}}}
HOOK = """
import os
from maand import MaandError, http_request
for method in ("CONNECT", "connect", "GET"):
    try:
        answer = http_request(method, os.environ["WEB"], timeout_seconds=3)
        print(method, answer["status_code"], answer["body"])
    except MaandError as error:
        print(method, error.status_code, error.code, error)
"""


@pytest.fixture
def web() -> Iterator[str]:
    """Serve a worker that answers `200 OK` and nothing more to everything, and keeps the connection."""
    listener = socket.create_server((WORKER, 0))
    held: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                held.append(connection)
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://{WORKER}:{listener.getsockname()[1]}/"
    listener.shutdown(socket.SHUT_RDWR)
    for each in (listener, *held):
        each.close()


def test_a_hook_is_refused_a_tunnel_and_the_services_go_on(maand: Maand, web: str) -> None:
    job = maand.bucket / "workspace/jobs/app"
    (job / "_hooks").mkdir(parents=True)
    (job / "manifest.json").write_text(json.dumps(MANIFEST))
    (job / "Makefile").write_text("start stop restart:\n\ttrue\n")
    (job / "_hooks/hook_c.py").write_text(HOOK)
    (maand.bucket / "workspace/workers.json").write_text(json.dumps([{"host": WORKER}]))
    conf = maand.bucket / "maand.conf"
    conf.write_text(conf.read_text() + 'hook_env = ["WEB"]\n')
    maand.environment["WEB"] = web
    maand.must("build")

    said = maand.must("hooks", "hook_c", "app").out

    assert said.count("400 invalid_argument") == 2, said
    assert "asks for a tunnel, which a hook cannot use" in said
    assert "504" in said, said  # a GET whose answer never ends: the time limit held
    assert maand.must("info").out
    assert maand.must("services", "stop", "--within", "5").code == 0
