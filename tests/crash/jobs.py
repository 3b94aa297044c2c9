"""The two jobs whose deploy executors die in."""

import json
from collections.abc import Sequence

from tests.crash.crash_bed import HOSTS
from tests.integration.executor.deploy_bed import DeployBed

NOTHING = "import sys\n"  # hooks are models; a real file makes them known


def write_jobs(bed: DeployBed, *, version: str, web: bool, disabled: Sequence[str] = ()) -> None:
    """Write job `api` on all five workers, and `web`, which demands it, on one."""
    hooks = {
        "hook_prepare": {"executed_on": ["pre_deploy"]},
        "hook_joined": {"executed_on": ["after_allocation_started"]},
        "hook_left": {"executed_on": ["after_allocation_stopped"]},
        "hook_settle": {"executed_on": ["post_deploy", "post_build"], "scope": "rollout"},
        "hook_check": {"executed_on": ["health_check"], "scope": "rollout"},
        "hook_tend": {"executed_on": ["cli"]},
    }
    bed.labels = {host: ["api", *(["web"] if host == HOSTS[0] else [])] for host in HOSTS}
    bed.write_workers()
    bed.write_job(
        "api",
        {
            "version": version,
            "selectors": ["api"],
            "max_concurrent_upgrades": 2,
            "hooks": hooks,
            "health_check": {
                "checks": [{"type": "ssh", "command": "is-running api"}],
                "wait": {"attempts": 2, "interval_seconds": 1},
            },
        },
        {"app.conf": f"version {version}\n", "greeting.j2": "{{ get('vars/job/api', 'hook_prepare_10_0_0_1', 'nobody') }}\n"}
        | {f"_hooks/{name}.py": NOTHING for name in hooks},
    )
    if web:
        bed.write_job(
            "web",
            {
                "version": version,
                "selectors": ["web"],
                "max_concurrent_starts": 1,
                "hooks": {
                    "hook_joined": {
                        "executed_on": ["after_allocation_started"],
                        "demands": {"job": "api", "hook": "hook_prepare"},
                    }
                },
            },
            {"page.html": f"version {version}\n", "_hooks/hook_joined.py": NOTHING},
        )
    bed.write("disabled.json", json.dumps({"jobs": {"api": {"allocations": list(disabled)}}} if disabled else {}))
