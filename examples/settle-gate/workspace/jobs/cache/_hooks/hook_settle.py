"""Hold the rollout until the allocations just started have caught up: the next batch begins only when this one is settled.

It runs for every allocation of the batch, beside each other, after `make start` or `restart` and before the health gate.
"""

import os
import time

from maand import allocation_ip, batch_count, batch_index, notice, run_make_target

deadline = time.monotonic() + float(os.environ.get("SETTLE_SECONDS", "60"))
pause = float(os.environ.get("SETTLE_PAUSE_SECONDS", "1"))

while True:
    status = run_make_target("status").stdout.strip()
    if status == "settled":
        break
    if time.monotonic() > deadline:
        raise SystemExit(f"{allocation_ip()} is still {status!r}; the rollout stops here, later batches are untouched")
    print(f"batch {batch_index() + 1} of {batch_count()}: {allocation_ip()} is {status}")
    time.sleep(pause)

notice(f"{allocation_ip()} settled")
