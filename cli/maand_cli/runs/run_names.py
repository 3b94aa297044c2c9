"""Runs as people name them: the whole id, its beginning, its number; nothing = the newest, or the only one that can be meant."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maand_cli.errors import NotThere, Usage
from maand_cli.output.message_dicts import field_word
from maand_cli.remote.catalog import Catalog
from maand_contracts.catalog.v1 import run_pb2
from maand_wire.enums import Number, enum_number, enum_word
from maand_wire.nearest import nearest_or_known

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

FULL_ID = 36
LOOKED_THROUGH = 200
"""How many runs back a short name is looked for."""


IN_PROGRESS = (run_pb2.RUN_STATE_PENDING, run_pb2.RUN_STATE_RUNNING)


async def find_run_in(catalog: Catalog, name: str, states: Sequence[run_pb2.RunState.ValueType]) -> run_pb2.Run:
    """Return the run of that name; without one, the only run in these states. Raises NotThere, or Usage when there are several.

    Whoever stops or resumes a run without naming it must not hit another one.
    """
    if name:
        return await find_run(catalog, name)
    runs = await catalog.list_runs(states=states, limit=LOOKED_THROUGH)
    if len(runs) == 1:
        return runs[0]
    words = " or ".join(run_pb2.RunState.Name(state).removeprefix("RUN_STATE_").lower() for state in states)
    if not runs:
        raise NotThere(f"no run is {words}", help="maand runs list")
    listed = ", ".join(f"{field_word(run, 'kind')} {run.run_id}" for run in runs)
    raise Usage(f"{len(runs)} runs are {words}: {listed}", help="name the one you mean")


async def find_run(catalog: Catalog, name: str) -> run_pb2.Run:
    """Return the run of that name. Raises NotThere, or Usage when several begin so."""
    if len(name) == FULL_ID:
        return await catalog.get_run(name)
    runs = await catalog.list_runs(limit=LOOKED_THROUGH if name else 1)
    return await catalog.get_run(resolve_run_name(name, [(run.run_id, run.seq) for run in runs]))


def resolve_run_name(name: str, runs: Sequence[tuple[str, int]]) -> str:
    """Return the id that a short name means, among (id, number) pairs, newest first."""
    if not name:
        if not runs:
            raise NotThere("there are no runs yet", help="maand build makes the first one")
        return runs[0][0]
    number = name.removeprefix("#")
    by_number = [run_id for run_id, seq in runs if number.isdigit() and seq == int(number)]
    found = by_number or [run_id for run_id, _ in runs if run_id.startswith(name) or run_id.endswith(name)]
    if not found:
        raise NotThere(f'no run "{name}" among the last {LOOKED_THROUGH}', help="maand runs list")
    if len(found) > 1:
        raise Usage(f'"{name}" is the beginning of {len(found)} runs', help="give more of the id, or the number")
    return found[0]


def parse_enum_words(enum: "_EnumTypeWrapper[Number]", words: Sequence[str], what: str) -> "list[Number]":
    """Return the values of an enum that these words mean. Raises Usage for one that is none."""
    known = [enum_word(enum, number) for number in enum.values() if number]
    for word in words:
        if word not in known:
            raise Usage(f'no such {what} "{word}"', help=nearest_or_known(word, known))
    return [enum_number(enum, word) for word in words]
