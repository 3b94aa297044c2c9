"""What the catalog keeps, by noun. Functions are named after intentions; each takes the open `Transaction` first.

    fleet  ->  kv  ->  runs  ->  semaphores  ->  tokens  ->  tables (all of them, with constraints and indexes)

`backup` and `restore` treat the database as a whole.
"""
