"""What all kinds of runs are made of; `runs` and `deploy` build on it.

context, lease, report, step_recorder     one claimed run: what it may use, whether it is still ours, what it will say at its end
fan_out, task_loops                       wide work on many workers, shared with other executors in parts
run_step, lifecycle_steps, worker_files   one step on one worker: announced, timed, its failure turned into a fact
event_hooks, shared_hooks, health_gate    hooks and probes within a run
fleet, preflight                          who is meant, and whether they are ready
failures                                  as the contract says them
"""
