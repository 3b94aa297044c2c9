"""WorkerService: the workers of the last build, and giving up those that left."""

from typing import Any

from maand_catalog.database.database import Database, Transaction
from maand_catalog.errors import InvalidArgument
from maand_catalog.rpc.callers import require_role
from maand_catalog.rpc.requests import asked_page, checked_text
from maand_catalog.rules.identity import Role
from maand_catalog.rules.workspace.names import LONGEST_HOST
from maand_catalog.store.fleet.buckets import get_bucket
from maand_catalog.store.fleet.listings import ListedWorker, list_workers
from maand_catalog.store.fleet.lost_workers import give_up_workers
from maand_catalog.store.tokens import record_audit
from maand_contracts.catalog.v1 import worker_pb2 as pb
from maand_contracts.catalog.v1.worker_pb2_grpc import WorkerServiceServicer
from maand_wire.conversions import message_writer


class WorkerServicer(WorkerServiceServicer):
    """Lists workers, for viewers; gives some up, for operators and their executors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Any) -> pb.ListWorkersResponse:
        """List workers by position."""
        require_role(context, Role.VIEWER)
        page = asked_page(request, int, usual=1_000, most=10_000)

        def intention(tx: Transaction) -> list[ListedWorker]:
            get_bucket(tx, request.bucket_id)
            return list_workers(
                tx,
                request.bucket_id,
                names=set(request.workers),
                labels=set(request.labels),
                include_removed=request.include_removed,
            )

        found = await self._database.read(intention)
        start = max(page.after[0], 0) if page.after else 0
        shown, more = page.cut(found[start:], lambda _: (start + page.limit,))
        return pb.ListWorkersResponse(workers=map(worker_message, shown), next_page_token=more)

    async def ForgetWorkers(self, request: pb.ForgetWorkersRequest, context: Any) -> pb.ForgetWorkersResponse:
        """Give up workers that left the workspace."""
        caller = require_role(context, Role.OPERATOR, Role.EXECUTOR)
        if not request.workers:
            raise InvalidArgument("no worker is named", facts={"field": "workers"})
        names = [checked_text(name, "workers", longest=LONGEST_HOST, required=True) for name in dict.fromkeys(request.workers)]

        def intention(tx: Transaction) -> None:
            get_bucket(tx, request.bucket_id)
            for name in give_up_workers(tx, request.bucket_id, names):
                record_audit(tx, actor=caller.name, action="worker.forget", subject=name, bucket_id=request.bucket_id)

        await self._database.write(intention)
        return pb.ForgetWorkersResponse()


worker_message = message_writer(pb.Worker, ListedWorker)
