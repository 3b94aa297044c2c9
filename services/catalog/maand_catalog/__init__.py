"""The catalog: everything maand must remember, correct on SQLite and on PostgreSQL.

    rpc (wire)  ->  rules (pure, named by nouns)
        |
        +------->  store (SQLAlchemy Core, group commit, bus)

The RPC layer decides who may do what and translates messages; rules decide; the store keeps. Nothing else of maand speaks to
the database.
"""
