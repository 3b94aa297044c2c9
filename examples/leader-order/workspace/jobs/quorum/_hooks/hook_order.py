"""Leader first when the cluster starts, leader last when it is upgraded.

The leader is remembered in the job's variables. A new cluster starts with it, so that followers find somebody to join. An
upgrade ends with it, so that the cluster loses its leader once instead of at every step.
"""

from maand import current_version, get_kv_value, job_name, notice, put_job_variable, put_rollout_order, rollout_order

workers = rollout_order()
namespace = f"vars/job/{job_name()}"
leader = get_kv_value(namespace, "leader", default="")
if leader not in workers:
    leader = workers[0]
    put_job_variable("leader", leader).raise_for_status()

followers = [worker for worker in workers if worker != leader]
is_first_start = current_version() == "0.0.0"
order = [leader, *followers] if is_first_start else [*followers, leader]
put_rollout_order(order).raise_for_status()
notice(f"leader {leader} goes {'first' if is_first_start else 'last'}: {', '.join(order)}")
