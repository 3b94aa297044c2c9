"""`maand-executor`: settings from the environment, serve and claim until asked to stop."""

import asyncio
import os
import sys

from maand_executor.service import start_executor
from maand_executor.settings import ExecutorSettings
from maand_wire.endpoints import EndpointError
from maand_wire.host_faults import HostFault
from maand_wire.logs import configure_logs
from maand_wire.supervision import until_asked_to_stop
from maand_wire.utf8_mode import ensure_utf8_mode


async def run_until_stopped(settings: ExecutorSettings) -> None:
    """Run one executor."""
    executor = await start_executor(settings)
    try:
        await until_asked_to_stop(*executor.loops)
    finally:
        await executor.stop()


def main() -> None:
    """Serve; exit 1 with one sentence when a setting is missing or wrong, or the machine has no room."""
    ensure_utf8_mode()
    configure_logs(format=os.environ.get("MAAND_LOG_FORMAT", "kv"))
    os.umask(0o077)  # what an executor makes is its own; trees and hooks get their modes explicitly
    try:
        settings = ExecutorSettings.from_environment()
        asyncio.run(run_until_stopped(settings))
    except (EndpointError, HostFault) as error:
        sys.stderr.write(f"error: {error}\n")
        if isinstance(error, HostFault):
            sys.stderr.write(f"  help: {error.help}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
