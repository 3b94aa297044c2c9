"""Make the secrets of the job before its first deploy, exactly once.

`scope: "rollout"` runs it on one allocation a run; `if_absent` makes a second run, a takeover, or two operators harmless:
whoever is first wins, everybody else reads the winner's value.
"""

import secrets

from maand import MaandError, notice, put_job_secret

for key, length in (("admin_password", 24), ("cluster_key", 32)):
    response = put_job_secret(key, secrets.token_urlsafe(length), if_absent=True)
    if response.ok:
        notice(f"made secret {key}")
    elif response.status_code == 409:
        print(f"{key} is there since version {response.json()['error']['details']['current_version']}")
    else:
        response.raise_for_status()
        raise MaandError(f"unexpected answer {response.status_code}")
