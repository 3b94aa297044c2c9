"""Few file descriptors: a deploy takes longer, and ends."""

import shutil

import pytest

from tests.integration.cli.test_local_services import maand_under
from tests.resources.conftest import Bed

pytestmark = [pytest.mark.resources, pytest.mark.timeout(300)]


@pytest.mark.parametrize("descriptors", [64, 128])
def test_a_deploy_to_many_workers_ends_well_with_few_descriptors(bed: Bed, descriptors: int) -> None:
    bed.add_workers(12)
    shutil.rmtree(bed.maand.bucket / "workspace/jobs/api/_hooks")
    bed.write_job(version="1.0.0", events=())
    bed.maand.must("build")
    bed.maand.must("services", "stop")
    said = maand_under("-n", descriptors, bed.maand, "deploy", seconds=150)
    assert said.returncode == 0, said
    assert "api: 14 started (14 promoted)" in said.stderr
    host = bed.maand.services()["pid"]
    assert "nothing to do" in bed.maand.must("deploy").err
    assert bed.maand.services()["pid"] == host


def test_a_template_that_wants_all_memory_fails_its_job_and_nothing_else(bed: Bed) -> None:
    bed.write_job(version="1.0.0", template="first\n{{ 'x' * 3000000000 }}\n")
    bed.maand.must("build")
    host = bed.maand.services()["pid"]
    said = bed.maand("deploy")
    assert said.code == 1, said
    assert "workspace/jobs/api/app.conf.j2:2: needs more memory than a template may have" in said.err
    bed.write_job(version="1.0.0")
    bed.settle()
    assert bed.maand.services()["pid"] == host
