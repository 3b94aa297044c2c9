"""Let this job deploy only when the database that it demands is ready for it.

`demands` in the manifest orders the deploys and opens the database's variables and secrets to this job; whether the database is
ready is its own word: it publishes the schemas it has made.
"""

import os
import time

from maand import get_kv_value, notice

deadline = time.monotonic() + float(os.environ.get("READY_SECONDS", "120"))

while "web" not in get_kv_value("vars/job/database", "ready_schemas", default="").split(","):
    if time.monotonic() > deadline:
        raise SystemExit("the database has not published the schema `web`; nothing of this job was touched")
    print("waiting for the database to publish the schema `web`")
    time.sleep(1)

get_kv_value("secrets/job/database", "password")  # a missing password fails here, before anything is rendered
notice("the database is ready")
