"""ExecutorService: what this executor is doing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from maand_contracts.executor.v1 import executor_pb2, executor_pb2_grpc
from maand_executor.rpc.callers import Viewers


@dataclass(frozen=True, kw_only=True)
class ExecutorReport:
    """What is told about an executor."""

    executor_id: str
    version: str
    hook_api: str
    run_ids: Sequence[str] = ()
    ssh_connections: int = 0
    hook_processes: int = 0


class ExecutorServicer(executor_pb2_grpc.ExecutorServiceServicer):
    """Answers from a report made at the moment of the call."""

    def __init__(self, report: Callable[[], ExecutorReport], viewers: Viewers) -> None:
        self._report = report
        self._viewers = viewers

    async def GetExecutorStatus(
        self, request: executor_pb2.GetExecutorStatusRequest, context: Any
    ) -> executor_pb2.GetExecutorStatusResponse:
        """Return this executor's state, to whoever may look."""
        await self._viewers.admit(context)
        report = self._report()
        return executor_pb2.GetExecutorStatusResponse(
            executor_id=report.executor_id,
            version=report.version,
            run_ids=list(report.run_ids),
            ssh_connections=report.ssh_connections,
            hook_processes=report.hook_processes,
            hook_api=report.hook_api,
        )
