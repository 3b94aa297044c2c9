"""Runs and tasks of the catalog, claimed and carried out: the loops of an executor.

claim_loop       claims again, with pauses
claimed_runs     runs: the loop, and one run from its lease to its end         claimed_tasks    parts of wide work likewise
run_endings      how a run ended, as a sentence
work_by_kind     which work belongs to which kind of run or task
"""
