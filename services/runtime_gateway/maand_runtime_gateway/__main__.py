"""`maand-runtime-gateway`: settings from the environment, start, serve until asked to stop."""

import asyncio
import sys

from maand_runtime_gateway.errors import GatewayError
from maand_runtime_gateway.service import start_gateway
from maand_runtime_gateway.settings import GatewaySettings
from maand_wire.endpoints import EndpointError
from maand_wire.logs import configure_logs
from maand_wire.supervision import until_asked_to_stop
from maand_wire.utf8_mode import ensure_utf8_mode

INVALID_CONFIGURATION = 3
"""Exit code for settings that cannot work."""


async def run_gateway() -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    running = await start_gateway(GatewaySettings.from_environment())
    try:
        await until_asked_to_stop(running.serving)
    finally:
        await running.stop()


def main() -> None:
    """Run the service."""
    ensure_utf8_mode()
    configure_logs()
    try:
        asyncio.run(run_gateway())
    except (GatewayError, EndpointError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(INVALID_CONFIGURATION)


if __name__ == "__main__":
    main()
