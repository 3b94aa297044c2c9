from pathlib import Path

import pytest

from maand_cli.errors import InvalidFile
from maand_cli.local.workers_file import Facts, insert_facts, write_facts

FACTS = {"10.0.0.2": Facts(memory_mb=4096, cpu_mhz=2000)}


def test_only_the_object_that_changes_is_written_anew() -> None:
    text = '[\n  {"host":"10.0.0.1"  , "tags": {"b": 1, "a": 2}},\n  {"host": "10.0.0.2", "labels": ["x"]}\n]\n'
    assert insert_facts(text, FACTS) == (
        '[\n  {"host":"10.0.0.1"  , "tags": {"b": 1, "a": 2}},\n'
        '  {"host": "10.0.0.2", "labels": ["x"], "memory": "4096 mb", "cpu": "2000 mhz"}\n]\n'
    )


def test_an_object_on_many_lines_stays_on_many_lines_in_its_own_order() -> None:
    text = '[\n    {\n        "host": "10.0.0.2",\n        "memory": "1 gb",\n        "position": 3\n    }\n]\n'
    assert insert_facts(text, FACTS) == (
        '[\n    {\n        "host": "10.0.0.2",\n        "memory": "4096 mb",\n        "position": 3,\n'
        '        "cpu": "2000 mhz"\n    }\n]\n'
    )


def test_equal_facts_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "workers.json"
    path.write_text('[{"host": "10.0.0.2"}]')
    path.chmod(0o640)
    assert write_facts(path, FACTS) is True
    assert write_facts(path, FACTS) is False
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ['{"host": "x"}', "", '[{"host": ]'])
def test_a_file_that_is_no_array_of_objects_is_refused(text: str) -> None:
    with pytest.raises(InvalidFile):
        insert_facts(text, FACTS)
