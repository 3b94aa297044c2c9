"""Replace the admin password on request: `maand hooks hook_rotate vault`, then `maand deploy` to roll it out."""

import secrets

from maand import get_store_value, job_name, notice, put_job_secret

current = get_store_value(f"secrets/job/{job_name()}", "admin_password")
current.raise_for_status()
version = current.json()["version"]
put_job_secret("admin_password", secrets.token_urlsafe(24), if_version=version).raise_for_status()
notice(f"admin_password is at version {version + 1}; deploy to roll it out")
