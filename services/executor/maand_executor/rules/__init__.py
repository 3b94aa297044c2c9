"""What the executor decides, as values and functions of the standard library only: no SSH, no gRPC, no template engine.

facts             what is known of jobs, workers and allocations
decisions         the decision table of a deploy: what happens with each allocation, and why; the runtime digest
waves             in which order, in which batches
worker_scripts    what is run on workers: make targets, stops, looking at tools; health: probes
remote_commands   a command as a value, and its bash text; bootstrap.sh is the part that never varies
hook_environment, hook_outcomes     hooks before they start and after they ended
masking, output_lines     output before anybody sees it           cancel, side_by_side, meter    for everything above
"""
