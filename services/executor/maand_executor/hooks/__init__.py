"""Hook processes: which ones run, in what order and surroundings, how they live, what is kept of what they say.

engine              an event of a job: hooks in name order, batches, failures                 -> EventOutcome
request, targets    what is asked of it, and what of that is to be run        outcome_messages    its end, as the contract says it
invocation          one hook on one allocation: directory, process, result    identities          their tokens
process             one process group: start, output, timeout, end        subreaper    ends what is left when the executor died
left_behind         what left its group, found by its token and ended
interpreter, dependencies   what runs the script
live_invocations    who is alive, by token: for the calls that hooks make to this executor
"""
