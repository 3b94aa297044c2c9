"""Every rule of the workspace is told at its place, and all of them in one pass."""

import pytest

from maand_catalog.rules.workspace.tree import TreeEntry, listing_findings, pack_tree, snapshot_id_of, unpack_tree
from tests.unit.catalog.workspace_row import DB, HOOK, MANIFEST, Row, demand
from tests.unit.catalog.workspace_rows import EVERY_ROW
from tests.unit.catalog.workspaces import problems, unmark


@pytest.mark.parametrize("row", EVERY_ROW, ids=lambda row: f"{row.code}: {row.rule}")
def test_every_rule_is_told_at_its_place(row: Row) -> None:
    files, place = unmark(row.files)

    found = problems(files, conf=row.conf, links=row.links)

    assert [problem.code for problem in found] == [row.code] * len(found), found
    assert found, "the mistake was not seen"
    problem = found[0]
    assert row.message in problem.message
    assert row.help in problem.help
    if place[0]:
        assert (problem.file, problem.line, problem.column) == place
    else:
        assert problem.file.startswith("workspace/")


def test_a_file_name_with_control_characters_is_shown_escaped() -> None:
    [found] = listing_findings([TreeEntry(path="jobs/api/a\n\x1b[2Jb", sha256=bytes(32))])

    assert (found.code, found.file) == ("bad_path", r"workspace/jobs/api/a\n\x1b[2Jb")
    assert found.message == r'"jobs/api/a\n\x1b[2Jb" is not a path inside the workspace'


def test_problems_of_all_files_come_in_one_pass_in_order() -> None:
    found = problems(
        {
            "workers.json": '[{"host": "a"}, {"hots": "b"}]',
            "jobs/api/manifest.json": '{"selector": ["x"], "version": "x"}',
            "jobs/api/vars.toml": "a = ",
            "jobs/db/manifest.json": "{",
            "disabled.json": "[]",
        }
    )

    places = [(problem.file, problem.line, problem.column) for problem in found]
    assert places == sorted(places)
    assert {problem.file.removeprefix("workspace/") for problem in found} == {
        "workers.json",
        "jobs/api/manifest.json",
        "jobs/api/vars.toml",
        "jobs/db/manifest.json",
        "disabled.json",
    }
    assert len(found) == 7


def test_a_broken_manifest_is_not_taken_for_a_missing_job() -> None:
    found = problems(
        {
            **DB,
            **HOOK,
            MANIFEST: demand('{"job": "db", "hook": "hook_s"}'),
            "jobs/db/manifest.json": "{",
            "disabled.json": '{"jobs": {"db": {}}}',
        }
    )

    assert [problem.code for problem in found] == ["json_syntax"]


def test_all_workers_that_are_too_small_are_told() -> None:
    found = problems(
        {
            "workers.json": """[{"host": "a", "labels": ["api"], "memory": 100, "cpu": 100},
                               {"host": "b", "labels": ["api"], "memory": 100}]""",
            MANIFEST: '{"resources": {"memory": {"max": 200}, "cpu": {"max": 200}}}',
        }
    )

    assert [problem.code for problem in found] == ["over_capacity"] * 3


def test_a_missing_variant_of_the_job_settings_is_told_in_maand_conf() -> None:
    [found] = problems({}, conf='job_config_selector = "prod"\n')

    assert (found.code, found.file, found.line) == ("missing_file", "maand.conf", 2)


def test_a_tree_with_directories_is_kept_and_named_as_it_was_listed() -> None:
    tree = (
        TreeEntry(path="jobs/api/Makefile", sha256=bytes(32), size=3),
        TreeEntry(path="jobs/api/current", mode=0o777, link_target="releases"),
        TreeEntry(path="jobs/api/spool", mode=0o700, directory=True),
    )
    assert unpack_tree(pack_tree(tree)) == tree
    assert list(listing_findings(tree)) == []
    assert snapshot_id_of(tree) != snapshot_id_of(tree[:2])


@pytest.mark.parametrize(
    "entry",
    [
        TreeEntry(path="jobs/api/x", directory=True, sha256=bytes(32)),
        TreeEntry(path="jobs/api/x", directory=True, link_target="y"),
        TreeEntry(path="jobs/api", directory=True),
        TreeEntry(path="elsewhere/api/x", directory=True),
    ],
)
def test_a_directory_is_nothing_else_and_below_a_job(entry: TreeEntry) -> None:
    assert [found.code for found in listing_findings([entry])] == ["bad_entry"]


def test_a_directory_may_hold_files_but_not_be_one() -> None:
    directory = TreeEntry(path="jobs/api/priv", mode=0o700, directory=True)
    inside = TreeEntry(path="jobs/api/priv/file", sha256=bytes(32))
    assert list(listing_findings([directory, inside])) == []
    twice = [directory, TreeEntry(path="jobs/api/priv", sha256=bytes(32))]
    assert "duplicate_path" in [found.code for found in listing_findings(twice)]
