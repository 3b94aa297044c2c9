"""Who a database is towards workers: a random owner id, which its copies do not share.

Workers keep the id of the database that acts on them and refuse any other's acts. So of two copies of one bucket only one serves
a fleet.

    first start                              an owner id is made, and where the database lives is noted (`database.home`)
    start, and it lives elsewhere            it is a copy: it gets an owner id of its own, and remembers whose copy it is
    restore, new-epoch, a backup served      a person says that this is the database now: the id stays, or is taken back
    workers are adopted (`adopt`)            the copy means to be itself: nothing is taken back any more
"""

from sqlalchemy import Row, select, update

from maand_catalog.database.home import read_home
from maand_catalog.database.statements import upsert_into
from maand_catalog.database.transaction import Transaction
from maand_catalog.ids import new_owner_id
from maand_catalog.store.tables.runs import database_facts

FIRST_EPOCH = 1
"""What a database has that was never restored."""


def read_owner(tx: Transaction) -> str:
    """Return the owner id; empty before the first catalog was started on it."""
    return tx.connection.execute(select(database_facts.c.owner_id)).scalar_one_or_none() or ""


def is_copy(tx: Transaction) -> bool:
    """Whether the database lives elsewhere than when it was noted. Locks the note: of two catalogs that start one goes first."""
    facts = lock_facts(tx)
    home = read_home(tx)
    return bool(facts.home and home and facts.home != home)


def make_own_owner(tx: Transaction) -> None:
    """Give a copy an owner id of its own. Whose workers it could take back stays known through further copies."""
    facts = lock_facts(tx)
    write_facts(tx, owner_id=new_owner_id(), copied_from=facts.copied_from or facts.owner_id)


def confirm_owner(tx: Transaction, *, known: str = "") -> None:
    """Be the database that workers know, wherever it lives now; `known`: what they may know it as, when it knows no id itself."""
    facts = lock_facts(tx)
    write_facts(tx, owner_id=facts.copied_from or facts.owner_id or known or new_owner_id(), copied_from="")


def keep_own_owner(tx: Transaction) -> None:
    """Let a copy stay itself: workers are being adopted for it."""
    tx.connection.execute(update(database_facts).values(copied_from=""))


def settle_owner(tx: Transaction) -> None:
    """See to it that a database that is no copy has an owner id, and that its home is noted."""
    facts = lock_facts(tx)
    if not facts.owner_id or not facts.home:
        write_facts(tx, owner_id=facts.owner_id or new_owner_id(), copied_from=facts.copied_from)


def lock_facts(tx: Transaction) -> Row[tuple[object, ...]]:
    """Return the one row, made where there is none, locked."""
    fresh = upsert_into(tx.dialect, database_facts).values(one=1, epoch=FIRST_EPOCH)
    tx.connection.execute(fresh.on_conflict_do_nothing())
    return tx.connection.execute(select(database_facts).with_for_update()).one()


def write_facts(tx: Transaction, *, owner_id: str, copied_from: str) -> None:
    """Write who the database is, and where it lives."""
    tx.connection.execute(update(database_facts).values(owner_id=owner_id, copied_from=copied_from, home=read_home(tx)))
