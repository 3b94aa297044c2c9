"""Makes the token once, and migrates with one allocation at a time; the template reads both in the same deploy."""

import secrets
import sys

from maand import allocation_ip, get_kv_value, hook_event, job_name, put_job_secret, put_job_variable, semaphore

if "--dry-run" in sys.argv:
    print(f"would migrate {job_name()} on {allocation_ip()} ({hook_event()})")
    sys.exit(0)

with semaphore("migration"):
    if not get_kv_value(f"secrets/job/{job_name()}", "token", default=""):
        put_job_secret("token", secrets.token_urlsafe(24)).raise_for_status()
        print("made the token:", get_kv_value(f"secrets/job/{job_name()}", "token"))
    done = int(get_kv_value(f"vars/job/{job_name()}", "migrations", default="0"))
    put_job_variable("migrations", str(done + 1)).raise_for_status()
    put_job_variable("migrated_to", get_kv_value("vars/job/database", "schema")).raise_for_status()
    print(f"migration {done + 1} on {allocation_ip()}")
