"""Listen on an address until killed; leave the process id in a file."""

import os
import pathlib
import socketserver
import sys

socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), socketserver.BaseRequestHandler)
pid = pathlib.Path(sys.argv[3])
pid.parent.mkdir(exist_ok=True)
pid.write_text(str(os.getpid()))
server.serve_forever()
