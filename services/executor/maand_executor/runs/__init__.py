"""What each kind of run does: one module per kind, `dispatch` is the table of them.

deploy          facts -> preflight -> reconcile -> waves of jobs          deploy_job      one job from hooks to promotion
deploy_plan     rendered files and the plan of one job                    deploy_batches  copy, lifecycle, promote
report, events, steps    what a run says while it works and at its end
"""
