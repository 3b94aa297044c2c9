"""Stands in for a real service: answers HTTP on the worker's address until it is told to stop."""

import http.server
import os
import pathlib
import signal
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every GET with 200."""

    def do_GET(self):
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *args):
        """Say nothing."""


server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
pathlib.Path("data").mkdir(exist_ok=True)
pathlib.Path("data/pid").write_text(str(os.getpid()))
signal.signal(signal.SIGTERM, signal.SIG_DFL)
server.serve_forever()
