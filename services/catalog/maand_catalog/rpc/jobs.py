"""JobService: what was built of jobs, and who demands whom."""

from typing import Any

from maand_catalog.database.database import Database, Transaction
from maand_catalog.errors import PermissionDenied
from maand_catalog.rpc.callers import caller_of, require
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
from maand_wire.conversions import writer
from maand_wire.enums import enum_number

POLICIES = {
    "always": pb.RESTART_POLICY_ALWAYS,
    "reload": pb.RESTART_POLICY_RELOAD,
    "never": pb.RESTART_POLICY_NEVER,
}
SCOPES = {"allocation": pb.HOOK_SCOPE_ALLOCATION, "rollout": pb.HOOK_SCOPE_ROLLOUT}


class JobServicer(JobServiceServicer):
    """Answers what was built, for viewers; a hook may ask who demands it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """List jobs by name."""
        require(context, Role.VIEWER)
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
        require(context, Role.VIEWER)
        page = asked_page(request, str, usual=1_000, most=10_000)
        files = await self._database.read(lambda tx: list_job_files(tx, request.bucket_id, request.job))
        following = [file for file in files if page.after is None or (file.path,) > page.after]
        found, more = page.cut(following, lambda last: (last.path,))
        return pb.ListJobFilesResponse(
            files=[
                workspace_pb2.WorkspaceFile(
                    path=file.path, sha256=file.sha256, mode=file.mode, size=file.size, link_target=file.link_target
                )
                for file in found
            ],
            next_page_token=more,
        )

    async def GetRolloutOrder(self, request: pb.GetRolloutOrderRequest, context: Any) -> pb.GetRolloutOrderResponse:
        """Return the rollout order in force."""
        require(context, Role.VIEWER)
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
        require(context, Role.VIEWER)
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
        require(context, Role.VIEWER)
        return request.bucket_id, request.job, request.hook
    own = (caller.bucket_id, caller.job, caller.hook)
    asked = (request.bucket_id, request.job, request.hook)
    if any(given not in ("", mine) for given, mine in zip(asked, own, strict=True)):
        raise PermissionDenied("a hook may only ask who demands it")
    return own


def job_message(job: ListedJob) -> pb.Job:
    """Describe a job."""
    facts = job.facts
    message = pb.Job(
        job_id=job.job_id,
        name=job.name,
        version=job.version,
        selectors=facts["selectors"],
        max_concurrent_starts=facts["max_concurrent_starts"],
        max_concurrent_upgrades=facts["max_concurrent_upgrades"],
        max_concurrent_stops=facts["max_concurrent_stops"],
        min_allocations_count=facts["min_allocations_count"],
        restart_policy=POLICIES[facts["restart_policy"]],
        restart_globs=facts["restart_globs"],
        deployment_seq=job.deployment_seq,
        memory_mb=job.memory_mb,
        cpu_mhz=job.cpu_mhz,
        hooks=[hook_message(hook) for hook in job.hooks],
        demanded_jobs=job.demanded_jobs,
        removed=job.removed,
        has_makefile=job.has_makefile,
    )
    if facts["health_check"] is not None:
        message.health_check.CopyFrom(health_message(facts["health_check"]))
    return message


hook_message = writer(pb.Hook, ListedHook, demand_config_json=lambda hook: hook.demand_config)


demand_message = writer(
    pb.HookDemand, ListedHook, hook=lambda hook: hook.name, demand_config_json=lambda hook: hook.demand_config or "{}"
)


def health_message(facts: dict[str, Any]) -> pb.HealthCheck:
    """Describe a health section."""
    return pb.HealthCheck(
        probes=[probe_message(probe) for probe in facts["probes"]],
        timeout_seconds=facts["timeout_seconds"],
        wait_attempts=facts["wait_attempts"],
        wait_interval_seconds=facts["wait_interval_seconds"],
    )


def probe_message(probe: dict[str, Any]) -> pb.HealthProbe:
    """Describe one check."""
    match probe["kind"]:
        case "tcp":
            return pb.HealthProbe(tcp=pb.TcpProbe(port=probe["port"]))
        case "http":
            scheme = enum_number(pb.HttpScheme, probe["scheme"])
            http = pb.HttpProbe(port=probe["port"], path=probe["path"], expect_status=probe["expect_status"], scheme=scheme)
            return pb.HealthProbe(http=http)
        case _:
            return pb.HealthProbe(ssh=pb.SshProbe(command=probe["command"]))
