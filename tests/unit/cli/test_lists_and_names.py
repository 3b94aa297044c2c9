from pathlib import Path

import pytest

from maand_cli.errors import NotThere, Usage
from maand_cli.options import split_list
from maand_cli.runs.run_names import resolve_run_name


def unread() -> str:
    raise AssertionError("standard input was read")


def test_commas_and_repetition_make_one_list_without_repeats() -> None:
    assert split_list(["a,b", "b", " c , "], read_stdin=unread) == ("a", "b", "c")


def test_a_list_is_read_from_a_file_with_comments(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.1  # first\n\n10.0.0.2,10.0.0.3\n# all\n")
    assert split_list([f"@{hosts}"], read_stdin=unread) == ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def test_a_dash_reads_standard_input() -> None:
    assert split_list(["a", "-"], read_stdin=lambda: "b\nc\n") == ("a", "b", "c")


RUNS = [("0192aaaa-1", 3), ("0192aabb-2", 2), ("0192cccc-3", 1)]


@pytest.mark.parametrize(
    ("name", "run_id"), [("", "0192aaaa-1"), ("2", "0192aabb-2"), ("#1", "0192cccc-3"), ("0192c", "0192cccc-3")]
)
def test_a_run_is_named_by_number_or_the_beginning_of_its_id(name: str, run_id: str) -> None:
    assert resolve_run_name(name, RUNS) == run_id


def test_an_ambiguous_or_unknown_run_is_refused() -> None:
    with pytest.raises(Usage, match="beginning of 2 runs"):
        resolve_run_name("0192aa", RUNS)
    with pytest.raises(NotThere):
        resolve_run_name("ffff", RUNS)
    with pytest.raises(NotThere, match="no runs yet"):
        resolve_run_name("", [])
