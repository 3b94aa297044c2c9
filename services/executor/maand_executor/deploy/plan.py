"""What a deploy will do to one job: its files rendered for each allocation, digests compared, decisions with reasons.

    stored files + views --(a process of its own)--> rendered files
    + certificates --(a worker thread)--> trees --plan_allocation--> JobPlan

Files last promoted are asked for only where the digest differs, so that an unchanged fleet costs one digest an allocation.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from maand_executor.content.allocation_trees import AllocationTree, JobContent, make_tree, split_job
from maand_executor.content.templates import RenderedFile, TemplateSubject, TemplateWork
from maand_executor.rules.decisions import ROLLED_OUT, STARTS, UPDATES, Action, PlannedAllocation, PlanOptions, plan_allocation
from maand_executor.rules.facts import Allocation, Certificates, Job, PlannedFile, RolloutOrder
from maand_executor.rules.waves import in_rollout_order
from maand_executor.rules.worker_scripts import job_directory
from maand_executor.steps.context import RunContext
from maand_executor.steps.fleet import Fleet


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """Decisions for a job's allocations in rollout order, and the trees of those that are rolled out."""

    job: Job
    order: RolloutOrder
    plans: tuple[PlannedAllocation, ...]
    trees: Mapping[str, AllocationTree] = field(repr=False)
    """By allocation id."""

    @property
    def starts(self) -> tuple[PlannedAllocation, ...]:
        """What is started."""
        return tuple(plan for plan in self.plans if plan.action in STARTS)

    @property
    def updates(self) -> tuple[PlannedAllocation, ...]:
        """What is brought up to date."""
        return tuple(plan for plan in self.plans if plan.action in UPDATES)

    @property
    def refused(self) -> tuple[PlannedAllocation, ...]:
        """What cannot be done as asked."""
        return tuple(plan for plan in self.plans if plan.action is Action.REFUSE)

    @property
    def rolled_out(self) -> tuple[PlannedAllocation, ...]:
        """What is copied somewhere."""
        return tuple(plan for plan in self.plans if plan.action in ROLLED_OUT)


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What the trees of a job are made of."""

    content: JobContent
    rendered: Mapping[str, Sequence[RenderedFile]] = field(repr=False)
    """By allocation id."""
    certificates: Certificates


async def plan_job(
    context: RunContext, fleet: Fleet, job: Job, allocations: Sequence[Allocation], options: PlanOptions
) -> JobPlan:
    """Plan active allocations of one job. Raises `TemplateError`, `PathClash`."""
    order = await context.catalog.read_rollout_order(context.identity.bucket_id, job.name)
    ordered = in_rollout_order(allocations, order.workers)
    trees = await make_trees(context, fleet, job, ordered)
    deployed = await read_deployed_files(context, ordered, trees)
    plans = await asyncio.to_thread(decide_allocations, job, ordered, trees, deployed, options)
    wanted = {plan.allocation.allocation_id for plan in plans if plan.action in ROLLED_OUT}
    return JobPlan(job=job, order=order, plans=plans, trees={one: tree for one, tree in trees.items() if one in wanted})


def decide_allocations(
    job: Job,
    allocations: Sequence[Allocation],
    trees: Mapping[str, AllocationTree],
    deployed: Mapping[str, Sequence[PlannedFile]],
    options: PlanOptions,
) -> tuple[PlannedAllocation, ...]:
    """Decide for each allocation, in order."""
    return tuple(
        plan_allocation(
            job,
            allocation,
            wanted=trees[allocation.allocation_id].files,
            digest=trees[allocation.allocation_id].digest,
            deployed=deployed.get(allocation.allocation_id, ()),
            options=options,
        )
        for allocation in allocations
    )


async def make_trees(
    context: RunContext, fleet: Fleet, job: Job, allocations: Sequence[Allocation]
) -> Mapping[str, AllocationTree]:
    """Put the trees of allocations together."""
    if not allocations:
        return {}
    subjects = [
        TemplateSubject(
            allocation=allocation,
            worker=fleet.worker(allocation.worker),
            bucket_id=context.identity.bucket_id,
            job_path=job_directory(context.config, job.name),
        )
        for allocation in allocations
    ]
    ingredients = await gather_ingredients(context, job, subjects)
    ids = [allocation.allocation_id for allocation in allocations]
    return await asyncio.to_thread(put_trees_together, ingredients, ids)


async def gather_ingredients(context: RunContext, job: Job, subjects: Sequence[TemplateSubject]) -> Ingredients:
    """Ask the catalog for what the trees are made of, and have the templates rendered."""
    bucket_id = context.identity.bucket_id
    content = split_job(job.name, await context.catalog.list_job_files(bucket_id, job.name))
    return Ingredients(
        content=content,
        rendered=await render_templates(context, content, subjects) if content.varies else {},
        certificates=await context.catalog.read_certificates(bucket_id, [one.allocation.allocation_id for one in subjects]),
    )


async def render_templates(
    context: RunContext, content: JobContent, subjects: Sequence[TemplateSubject]
) -> Mapping[str, Sequence[RenderedFile]]:
    """Return the rendered files of each subject, by its allocation's id. Raises `TemplateError`."""
    bucket_id = context.identity.bucket_id
    await context.content.ensure(bucket_id, [template.sha256 for template in content.templates])
    work = TemplateWork(
        job=content.job,
        sources={template.path: context.content.read(template.sha256) for template in content.templates},
        modes={template.path: template.mode for template in content.templates},
        subjects=tuple(subjects),
        views=await context.catalog.read_allocation_views(bucket_id, [one.allocation.allocation_id for one in subjects]),
    )
    return await context.templates.render(work)


def put_trees_together(ingredients: Ingredients, allocation_ids: Sequence[str]) -> dict[str, AllocationTree]:
    """Make the tree of each allocation; where they cannot differ, one tree serves all."""
    if not ingredients.content.varies and not ingredients.certificates.leaves:
        return dict.fromkeys(allocation_ids, put_tree_together(ingredients, allocation_ids[0]))
    return {allocation_id: put_tree_together(ingredients, allocation_id) for allocation_id in allocation_ids}


def put_tree_together(ingredients: Ingredients, allocation_id: str) -> AllocationTree:
    """Make one tree."""
    rendered = ingredients.rendered.get(allocation_id, ())
    return make_tree(ingredients.content, rendered, ingredients.certificates, allocation_id=allocation_id)


async def read_deployed_files(
    context: RunContext, allocations: Sequence[Allocation], trees: Mapping[str, AllocationTree]
) -> Mapping[str, tuple[PlannedFile, ...]]:
    """Return what was last promoted where it is not what is wanted now."""
    differing = [
        one.allocation_id for one in allocations if one.deployed_sha256 and one.deployed_sha256 != trees[one.allocation_id].digest
    ]
    if not differing:
        return {}
    return await context.catalog.list_deployed_files(context.identity.bucket_id, differing)
