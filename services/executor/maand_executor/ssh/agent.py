"""An SSH agent, asked within a limit. What is wrong with it is told as the agent's fault, never as a worker's refusal.

asyncssh by itself goes on without keys when an agent is gone, and waits for one that is silent until the login is over.
"""

import asyncio
from datetime import timedelta
from pathlib import Path

import asyncssh

from maand_executor.ssh.errors import short_reason


class Agent(asyncssh.SSHAgentClient):
    """A connection to an agent for one login.

    `problem` says why it gave no keys, `signing_problem` why it did not sign; both are empty where nothing was wrong.
    """

    def __init__(self, path: str, *, limit: timedelta) -> None:
        super().__init__(path)
        self.name = describe_agent(path)
        self.problem = ""
        self.signing_problem = ""
        self._limit = limit

    async def list_keys(self) -> list[asyncssh.SSHKeyPair]:
        """Return its keys, none when it has none or something is wrong with it."""
        keys: list[asyncssh.SSHKeyPair] = []
        try:
            async with asyncio.timeout(self._limit.total_seconds()):
                await self.connect()
                keys = list(await self.get_keys())
        except TimeoutError:
            self.problem = f"{self.name} does not answer within {self._limit.total_seconds():g} s"
        except OSError as error:
            self.problem = f"{self.name} cannot be reached: {short_reason(error)}"
        except ValueError as error:
            self.problem = f"{self.name} gives no usable answer: {error}"
        else:
            self.problem = "" if keys else f"{self.name} holds no keys"
        return keys

    async def sign(self, key_blob: bytes, data: bytes, flags: int = 0) -> bytes:
        """Sign, and remember what went wrong, or that it still goes on: asyncssh then ends the login."""
        self.signing_problem = f"{self.name} does not sign in time: does it ask for a confirmation, or a touch?"
        try:
            signature = await super().sign(key_blob, data, flags)
        except ValueError as error:
            self.signing_problem = f"{self.name} does not sign: {str(error) or 'it hung up'}"
            raise
        self.signing_problem = ""
        return signature


def describe_agent(path: str) -> str:
    """Name an agent by its socket; where that is a link, by the socket it leads to."""
    try:
        return f"the SSH agent at {Path(path).readlink()}"
    except OSError:
        return f"the SSH agent at {path}"
