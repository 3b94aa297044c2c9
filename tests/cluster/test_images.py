"""What the images hold, and what they do not."""

import json

import pytest

from tests.cluster.cluster import Cluster, docker

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120), pytest.mark.xdist_group("cluster")]

LIST = "import os, sysconfig; print(*os.listdir(sysconfig.get_path('purelib')))"
WIRE = {"maand_contracts", "maand_wire"}
PARTS = {
    "catalog1": {"maand_catalog", *WIRE},
    "executor1": {"maand_executor", "maand_hook_sdk", *WIRE},
    "gateway1": {"maand_runtime_gateway", *WIRE},
}


@pytest.mark.parametrize("service", PARTS)
def test_an_image_holds_its_service_and_no_other_and_nothing_that_built_it(cluster: Cluster, service: str) -> None:
    container = cluster.container(service)
    packages = docker("exec", container, "python", "-c", LIST).split()
    assert {name for name in packages if name.startswith("maand") and "-" not in name} == PARTS[service]
    programs = docker("exec", container, "ls", "/opt/maand/bin").split()
    assert not [name for name in programs if name.startswith(("pip", "hatch"))]


@pytest.mark.parametrize("service", PARTS)
def test_a_service_runs_as_nobody_special_under_an_init_and_says_how_it_is(cluster: Cluster, service: str) -> None:
    (described,) = json.loads(docker("inspect", cluster.container(service)))
    assert described["HostConfig"]["Init"] is True
    assert described["Config"]["User"] == "maand"
    assert described["Config"]["Healthcheck"]["Test"]
    assert {"title", "version", "description"} <= {label.rpartition(".")[2] for label in described["Config"]["Labels"]}


@pytest.mark.parametrize("service", PARTS)
def test_an_image_tells_nobody_from_which_index_it_was_built(cluster: Cluster, service: str) -> None:
    (described,) = json.loads(docker("inspect", cluster.container(service)))
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", described["Image"])
    assert "INDEX" not in " ".join([*described["Config"]["Env"], history]).upper()
