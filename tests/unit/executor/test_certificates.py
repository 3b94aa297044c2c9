"""Certificates near and past their end, as deploys and health checks tell of them."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from maand_executor.rules.certificates import EndingCertificate, EndingCertificates, describe_ending
from tests.unit.executor.fakes_runs import Ended, RunBed

HOST, OTHER = "10.0.0.1", "10.0.0.2"
BUILD, NEW_CA = "`maand build` renews it", "make a new CA"
LEAF = EndingCertificate(
    job="api", name="web", worker=HOST, not_after=datetime(2026, 12, 17, tzinfo=UTC), days_left=3, ended=False, help=BUILD
)
OVER = replace(LEAF, days_left=-4, ended=True)
SICK_CA = EndingCertificates(authority_message="the bucket's CA ends on 2026-12-17", authority_help=NEW_CA)


@pytest.fixture
def bed(tmp_path: Path) -> RunBed:
    bed = RunBed(tmp_path)
    bed.catalog.config = replace(bed.catalog.config, ssh_config="here")
    bed.add_job("api", workers=2)
    return bed


async def check(bed: RunBed) -> Ended:
    return await bed.run(spec.RunSpec(health_check=spec.HealthCheckSpec()))


async def test_what_ends_soon_is_told_by_deploys_and_health_checks_and_stops_neither(bed: RunBed) -> None:
    bed.catalog.ending = EndingCertificates(leaves=(LEAF,))
    for ended in (await bed.deploy(), await bed.deploy(), await bed.deploy(dry_run=True), await check(bed)):
        assert ended.word == "succeeded"
        assert list(ended.result.notices) == [f"certificate web of api@{HOST} ends in 3 days: {BUILD}"]


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_deploy_over_an_ended_certificate_fails_before_anything_is_changed(bed: RunBed, dry_run: bool) -> None:
    await bed.deploy()
    bed.catalog.ending = EndingCertificates(leaves=(OVER,))
    ended = await bed.deploy(dry_run=dry_run)
    assert (ended.word, ended.result.message) == ("failed", "nothing was changed: a certificate has ended")
    (failure,) = ended.result.failures
    assert (failure.kind, failure.job, failure.worker) == (pb.FAILURE_KIND_PREREQUISITE, "api", HOST)
    assert (failure.message, failure.help) == ("certificate web ended on 2026-12-17", BUILD)
    assert bed.did == []


async def test_a_build_in_the_same_run_renews_it(bed: RunBed) -> None:
    await bed.deploy()
    bed.catalog.ending = EndingCertificates(leaves=(OVER,))
    build = bed.catalog.build_snapshot

    async def renew(*asked: object) -> object:
        bed.catalog.ending = EndingCertificates()
        return await build(*asked)  # type: ignore[arg-type]  # passed on as it came

    bed.catalog.build_snapshot = renew  # type: ignore[method-assign,assignment]  # a build that renews
    assert (await bed.deploy(build_snapshot_id="snapshot")).word == "succeeded"


@pytest.mark.parametrize("which", ["removed", "disabled", "other job"])
async def test_certificates_that_nothing_in_scope_uses_hold_nothing_up(bed: RunBed, which: str) -> None:
    bed.add_job("web")
    await bed.deploy()
    if which == "other job":
        bed.catalog.ending = EndingCertificates(leaves=(replace(OVER, job="web"),))
    else:
        bed.catalog.ending = EndingCertificates(leaves=(replace(OVER, worker=OTHER),))
        bed.catalog.change("api", OTHER, **{which: True})
    assert (await bed.deploy(jobs=["api"])).word == "succeeded"


async def test_an_ended_certificate_is_unhealthy_whatever_the_allocation_answers(bed: RunBed) -> None:
    bed.catalog.ending = EndingCertificates(leaves=(OVER,))
    ended = await check(bed)
    assert ended.word == "failed"
    assert ended.result.counts == {"healthy": 1, "unhealthy": 1}
    assert [failure.worker for failure in ended.result.failures] == [HOST]


async def test_a_ca_near_its_end_is_told_once_and_its_leaves_with_it(bed: RunBed) -> None:
    bed.catalog.ending = replace(SICK_CA, leaves=(replace(LEAF, help=NEW_CA), replace(LEAF, name="old", days_left=1)))
    ended = await bed.deploy()
    assert list(ended.result.notices) == [
        "the bucket's CA ends on 2026-12-17; make a new CA",
        f"certificate old of api@{HOST} ends in 1 day: {BUILD}",
    ]


def test_many_leaves_of_one_end_are_one_sentence() -> None:
    leaves = tuple(replace(LEAF, worker=f"10.0.0.{number}", days_left=0) for number in range(1, 9))
    assert list(describe_ending(EndingCertificates(leaves=leaves), leaves)) == [
        "certificate web of api on 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5 and 3 more ends in less than a day: " + BUILD
    ]


async def test_one_question_is_asked_however_many_allocations_there_are(bed: RunBed) -> None:
    bed.add_job("wide", workers=120)
    before = bed.catalog.ending_asked
    await bed.deploy()
    assert bed.catalog.ending_asked == before + 1
