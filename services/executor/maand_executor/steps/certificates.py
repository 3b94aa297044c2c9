"""A look at the certificates of the last build, before anything is changed and at health checks. One question to the catalog."""

from collections.abc import Iterable

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.certificates import EndingCertificate, describe_ending
from maand_executor.rules.facts import Allocation
from maand_executor.steps.context import RunContext

CERTIFICATE = "certificate"


async def check_certificates(context: RunContext, allocations: Iterable[Allocation]) -> list[pb.Failure]:
    """Warn of what ends soon, and return a failure for each certificate of these allocations that has ended."""
    ending = await context.catalog.read_ending_certificates(context.identity.bucket_id)
    places = {(one.job, one.worker) for one in allocations} if ending.leaves or ending.authority_message else set()
    if not places:
        return []
    leaves = [leaf for leaf in ending.leaves if (leaf.job, leaf.worker) in places]
    for sentence in describe_ending(ending, leaves):
        context.warn(sentence)
    return [ended_failure(leaf) for leaf in leaves if leaf.ended]


def ended_failure(leaf: EndingCertificate) -> pb.Failure:
    """Tell that a certificate is over, and what renews it."""
    return pb.Failure(
        kind=pb.FAILURE_KIND_PREREQUISITE,
        job=leaf.job,
        worker=leaf.worker,
        step=CERTIFICATE,
        message=leaf.message,
        help=leaf.help,
    )
