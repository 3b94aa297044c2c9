"""The warden: a tiny shell process that outlives its executor just long enough to kill the process groups it left behind.

`setpriv --pdeathsig` ends a hook with its executor, but not what the hook had started. The executor tells the warden through a
pipe which groups live; when the pipe closes, the executor is gone, however that came about, and the warden kills what is still on
its list. A group is taken off the list when it was killed and its leader is still a zombie: its number is not anybody else's yet.
"""

import subprocess
from contextlib import suppress

SCRIPT = """
groups=' '
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;; esac ;;
  esac
done
for group in $groups; do kill -KILL "-$group" 2>/dev/null; done
"""


class Warden:
    """Starts with the first group it is told of. Losing it loses nothing but this last resort."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """Put a process group on the list."""
        self._tell(f"+ {group}\n")

    def forget(self, group: int) -> None:
        """Take it off the list."""
        self._tell(f"- {group}\n")

    def close(self) -> None:
        """End the warden. It kills what is still on its list, as it would if the executor had died."""
        process, self._process = self._process, None
        if process:
            with suppress(BrokenPipeError):
                process.communicate()

    def _tell(self, line: str) -> None:
        if self._process is None:
            self._process = start()
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())


def start() -> "subprocess.Popen[bytes]":
    """Start the shell in a session of its own, where no Ctrl-C reaches it."""
    return subprocess.Popen(
        ["/bin/sh", "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
    )
