"""Where the catalog keeps things: tables, transactions, and who wakes whom.

    Database.write(intention)  ->  GroupWriter (one transaction for what queued up, a SAVEPOINT each)  ->  Bus after commit
    Database.read(intention)   ->  a pooled connection in a worker thread

Store modules named by nouns hold functions named after intentions; each takes the open `Transaction` first.
"""
