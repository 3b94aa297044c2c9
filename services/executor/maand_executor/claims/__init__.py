"""Runs and tasks of the catalog, claimed and carried out: the loops of an executor.

claim_loop    claims again, with pauses          run_claims, tasks      what is claimed
runner        one claimed run from its lease to its end         endings    how it ended, as a sentence
work_by_kind     which work belongs to which kind of run or task
"""
