"""rsync's remote shell: hands rsync's two pipes to the executor and stays until it is told the exit code.

Run by the local rsync as `python -I -S relay.py <descriptor> <host> rsync --server …`; the descriptor is one end of a socket
pair that only the executor and this process tree hold. No byte of the copy passes through here: the executor reads from and
writes to rsync's own pipes, over the SSH connection that is already open.
Only modules that cost nothing to import: it starts in the time of the interpreter.
"""

import _socket
import os
import sys


def main(descriptor: str, *words: str) -> int:
    """Send descriptors 0 and 1 with the words rsync wants run; return the exit code that comes back."""
    executor = _socket.socket(fileno=int(descriptor))
    pipes = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1))
    message = b"\0".join(os.fsencode(word) for word in words)
    executor.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pipes)])
    os.close(0)
    os.close(1)
    answer = executor.recv(1)
    return answer[0] if answer else 255


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
