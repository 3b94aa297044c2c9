"""Make the database's password once."""

import secrets

from maand import put_job_secret

response = put_job_secret("password", secrets.token_urlsafe(24), if_absent=True)
if response.status_code != 409:
    response.raise_for_status()
