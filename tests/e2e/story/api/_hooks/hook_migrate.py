"""Bootstraps a secret once, migrates under a lock, and tells the template about it in the same deploy."""

import os
import secrets
import sys

from maand import (
    allocation_ip,
    get_kv_value,
    hook_event,
    job_name,
    put_job_secret,
    put_job_variable,
    run_ssh,
    semaphore,
)

print("migrating", job_name(), "on", allocation_ip(), "event", hook_event(), "batch", os.environ["BATCH_INDEX"], *sys.argv[1:])
if "--fail-on" in sys.argv and sys.argv[sys.argv.index("--fail-on") + 1] == allocation_ip():
    sys.exit(3)

with semaphore("migration"):
    done = int(get_kv_value(f"vars/job/{job_name()}", "migrations", default="0"))
    if get_kv_value(f"secrets/job/{job_name()}", "token", default="") == "":
        put_job_secret("token", secrets.token_urlsafe(24)).raise_for_status()
    put_job_variable("migrations", str(done + 1)).raise_for_status()
    put_job_variable("migrated_to", get_kv_value("vars/job/database", "schema")).raise_for_status()

print("the token is", get_kv_value(f"secrets/job/{job_name()}", "token"))
if hook_event() == "cli":
    run_ssh(allocation_ip(), "systemctl is-active myapp").raise_for_status()
