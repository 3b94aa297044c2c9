"""The seam to SQLite and PostgreSQL. It knows transactions, statements and wake-ups, and nothing of what is kept.

Database.write(intention)  ->  GroupWriter (one transaction for what queued up, a SAVEPOINT each)  ->  Bus after commit
Database.read(intention)   ->  a pooled connection in a worker thread
"""
