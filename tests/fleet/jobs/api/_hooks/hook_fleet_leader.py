"""Puts the leader last, when somebody named one."""

from maand import get_kv_value, put_rollout_order, rollout_order

leader = get_kv_value("vars/job/api", "leader", default="")
if leader:
    put_rollout_order([worker for worker in rollout_order() if worker != leader] + [leader]).raise_for_status()
