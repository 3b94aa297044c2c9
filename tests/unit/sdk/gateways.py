"""Gateways that misbehave on purpose: each connection is handled by a function of the test's choice."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Handle = Callable[[socket.socket], None]

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@contextmanager
def serving(*handlers: Handle, after_seconds: float = 0) -> Iterator[int]:
    """Serve on a free port; the n-th connection goes to the n-th handler, further ones are refused, and all are at first."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    if not after_seconds:
        listener.listen()
    threads: list[threading.Thread] = []

    def serve() -> None:
        if after_seconds:
            time.sleep(after_seconds)
            listener.listen()
        for handle in handlers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=handle_and_close, args=(handle, connection)))
            threads[-1].start()

    acceptor = threading.Thread(target=serve)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):  # it never listened
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (acceptor, *threads):
            thread.join(timeout=10)


def handle_and_close(handle: Handle, connection: socket.socket) -> None:
    """Handle one connection."""
    with connection:
        connection.settimeout(10)
        with suppress(ConnectionError):
            handle(connection)


def read_request(connection: socket.socket) -> bytes:
    """Read one request, body included; empty when the client has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answering(times: int, *, seen: list[bytes]) -> Handle:
    """Answer so many requests with success, then close."""

    def handle(connection: socket.socket) -> None:
        for _ in range(times):
            request = read_request(connection)
            if not request:
                return
            seen.append(request)
            connection.sendall(OK)

    return handle


def dropping(answers: int, *, seen: list[bytes]) -> Handle:
    """Answer so many requests, read one more, and close without an answer."""

    def handle(connection: socket.socket) -> None:
        answering(answers, seen=seen)(connection)
        seen.append(read_request(connection))

    return handle
