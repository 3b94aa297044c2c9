"""The subreaper: what sees to it that nothing a hook started outlives the hook, or its executor.

`setpriv --pdeathsig` ends a hook with its executor, but not what the hook had started. A tiny shell process outlives the executor
just long enough for that: the executor tells it through a pipe which process groups live, and which tokens; when the pipe closes,
the executor is gone, however that came about, and the shell kills the groups still on its list, then every process that still
carries a token on its list (see `left_behind`, which does the same while the executor lives). A group is taken off the list when
it was killed and its leader is still a zombie: its number is not anybody else's yet.
"""

import subprocess
from contextlib import suppress

from maand_executor.hooks.left_behind import LeftBehind
from maand_executor.rules.hook_environment import API_TOKEN_NAME

SCRIPT = f"""
words=' '
while read -r sign word; do
  case $sign in
    +) words="$words$word " ;;
    -) case $words in *" $word "*) words="${{words%% $word *}} ${{words#* $word }}" ;; esac ;;
  esac
done
tokens=''
for word in $words; do
  case $word in
    {API_TOKEN_NAME}=?*) tokens="$tokens $word" ;;
    *) kill -KILL "-$word" 2>/dev/null ;;
  esac
done
[ -n "$tokens" ] || exit 0
for round in 1 2 3 4 5 6 7 8 9 10; do
  left=$(printf '%s\\n' $tokens | grep -lzxFf - /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3)
  [ -n "$left" ] || break
  kill -KILL $left 2>/dev/null
done
"""


class Subreaper:
    """Its shell starts with the first group it is told of. Losing that loses nothing but the last resort."""

    def __init__(self) -> None:
        self.left_behind = LeftBehind()
        """Ends what leaves a group, while the executor lives."""
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int, token: str = "") -> None:
        """Put a process group on the list, and the token that its processes were started with, if they were."""
        self._tell(f"+ {group}\n")
        if token:
            self._tell(f"+ {API_TOKEN_NAME}={token}\n")

    def forget(self, group: int) -> None:
        """Take the group off the list."""
        self._tell(f"- {group}\n")

    def forget_token(self, token: str) -> None:
        """Take the token off the list."""
        self._tell(f"- {API_TOKEN_NAME}={token}\n")

    def close(self) -> None:
        """End the subreaper. It kills what is still on its list, as it would if the executor had died."""
        process, self._process = self._process, None
        if process:
            with suppress(BrokenPipeError):
                process.communicate()

    def _tell(self, line: str) -> None:
        if self._process is None:
            self._process = start_shell()
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())


def start_shell() -> "subprocess.Popen[bytes]":
    """Start the shell in a session of its own, where no Ctrl-C reaches it."""
    return subprocess.Popen(
        ["/bin/sh", "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
    )
