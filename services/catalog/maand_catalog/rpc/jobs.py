"""JobService: what was built of jobs, and who demands whom."""

from dataclasses import asdict
from typing import Any

from maand_catalog.database.database import Database, Transaction
from maand_catalog.errors import PermissionDenied
from maand_catalog.rpc.callers import caller_of, require_role
from maand_catalog.rpc.requests import asked_page
from maand_catalog.rules.identity import HookCaller, Role
from maand_catalog.store.fleet.buckets import get_bucket
from maand_catalog.store.fleet.build_transaction import read_ports
from maand_catalog.store.fleet.listings import (
    ListedHook,
    ListedJob,
    list_hook_demands,
    list_job_files,
    list_jobs,
    read_rollout_order,
)
from maand_contracts.catalog.v1 import job_pb2 as pb
from maand_contracts.catalog.v1 import workspace_pb2
from maand_contracts.catalog.v1.job_pb2_grpc import JobServiceServicer
from maand_wire.conversions import message_of_words, message_writer


class JobServicer(JobServiceServicer):
    """Answers what was built, for viewers; a hook may ask who demands it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """List jobs by name."""
        require_role(context, Role.VIEWER)
        page = asked_page(request, str, usual=1_000)

        def intention(tx: Transaction) -> list[ListedJob]:
            get_bucket(tx, request.bucket_id)
            return list_jobs(
                tx,
                request.bucket_id,
                names=request.names,
                include_removed=request.include_removed,
                after=page.after,
                limit=page.limit + 1,
            )

        found, more = page.cut(await self._database.read(intention), lambda last: (last.name,))
        return pb.ListJobsResponse(jobs=map(job_message, found), next_page_token=more)

    async def ListJobFiles(self, request: pb.ListJobFilesRequest, context: Any) -> pb.ListJobFilesResponse:
        """List the stored files of one job."""
        require_role(context, Role.VIEWER)
        page = asked_page(request, str, usual=1_000, most=10_000)
        files = await self._database.read(lambda tx: list_job_files(tx, request.bucket_id, request.job))
        following = [file for file in files if page.after is None or (file.path,) > page.after]
        found, more = page.cut(following, lambda last: (last.path,))
        return pb.ListJobFilesResponse(
            files=[workspace_pb2.WorkspaceFile(**asdict(file)) for file in found],
            next_page_token=more,
        )

    async def GetRolloutOrder(self, request: pb.GetRolloutOrderRequest, context: Any) -> pb.GetRolloutOrderResponse:
        """Return the rollout order in force."""
        require_role(context, Role.VIEWER)
        order = await self._database.read(lambda tx: read_rollout_order(tx, request.bucket_id, request.job))
        return pb.GetRolloutOrderResponse(workers=order.workers, set_by_hook=order.set_by_hook, warning=order.warning)

    async def ListHookDemands(self, request: pb.ListHookDemandsRequest, context: Any) -> pb.ListHookDemandsResponse:
        """List the hooks that demand a hook; a hook asks about itself."""
        bucket_id, job, hook = asked_hook(request, context)
        page = asked_page(request, str, str, usual=1_000)
        demands = await self._database.read(
            lambda tx: list_hook_demands(tx, bucket_id, job, hook, after=page.after, limit=page.limit + 1)
        )
        found, more = page.cut(demands, lambda last: (last.job, last.name))
        return pb.ListHookDemandsResponse(demands=map(demand_message, found), next_page_token=more)

    async def ListPorts(self, request: pb.ListPortsRequest, context: Any) -> pb.ListPortsResponse:
        """List the assigned ports by name."""
        require_role(context, Role.VIEWER)
        page = asked_page(request, str, usual=1_000)

        def intention(tx: Transaction) -> list[pb.Port]:
            get_bucket(tx, request.bucket_id)
            found = read_ports(tx, request.bucket_id, after=page.after, limit=page.limit + 1).values()
            return [pb.Port(name=port.name, number=port.number, job=port.job, fixed=port.fixed) for port in found]

        found, more = page.cut(await self._database.read(intention), lambda last: (last.name,))
        return pb.ListPortsResponse(ports=found, next_page_token=more)


def asked_hook(request: pb.ListHookDemandsRequest, context: Any) -> tuple[str, str, str]:
    """Return bucket, job and hook that are asked about; a hook may only ask about itself."""
    caller = caller_of(context)
    if not isinstance(caller, HookCaller):
        require_role(context, Role.VIEWER)
        return request.bucket_id, request.job, request.hook
    own = (caller.bucket_id, caller.job, caller.hook)
    asked = (request.bucket_id, request.job, request.hook)
    if any(given not in ("", mine) for given, mine in zip(asked, own, strict=True)):
        raise PermissionDenied("a hook may only ask who demands it")
    return own


hook_message = message_writer(pb.Hook, ListedHook, demand_config_json=lambda hook: hook.demand_config)
listed_job_message = message_writer(pb.Job, ListedJob, hooks=lambda job: map(hook_message, job.hooks))
demand_message = message_writer(
    pb.HookDemand, ListedHook, hook=lambda hook: hook.name, demand_config_json=lambda hook: hook.demand_config or "{}"
)


def job_message(job: ListedJob) -> pb.Job:
    """Describe a job: its row, and what the table keeps of its manifest under the names of the contract."""
    message, facts = listed_job_message(job), dict(job.facts)
    if health := facts["health_check"]:
        facts["health_check"] = health | {"probes": map(probe_words, health["probes"])}
    message.MergeFrom(message_of_words(pb.Job, facts))
    return message


def probe_words(probe: dict[str, Any]) -> dict[str, Any]:
    """Return a check in the shape of the contract: under its kind, with the fields that kind has."""
    known = getattr(pb.HealthProbe(), probe["kind"]).DESCRIPTOR.fields_by_name
    return {probe["kind"]: {name: value for name, value in probe.items() if name in known}}
