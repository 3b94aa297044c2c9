"""A deploy: facts -> affected workers -> reconcile -> waves of jobs.

run           the whole, from the build to the summary            dry_run    the same plan, told instead of carried out
plan          rendered files and decisions of one job             job        one job from its hooks to promotion
batches       copy, lifecycle, promote                            reconcile  stop what was disabled or removed
affected_workers   who will be touched, and is it ready           shared_lifecycle   parts of batches of others' runs
state, attempts    what is known and recorded while it runs
"""
