from hypothesis import given
from hypothesis import strategies as st

from maand_executor.rules.decisions import differing_paths, digest_of_content, runtime_digest
from maand_executor.rules.facts import PlannedFile

A = PlannedFile(path="a", mode=0o644, sha256=digest_of_content(b"a"))
B = PlannedFile(path="b", mode=0o755, sha256=digest_of_content(b"b"))

files = st.lists(
    st.builds(
        PlannedFile,
        path=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8),
        mode=st.sampled_from([0o600, 0o644, 0o755]),
        sha256=st.binary(min_size=32, max_size=32),
    ),
    unique_by=lambda file: file.path,
    max_size=6,
)


@given(files)
def test_the_order_of_files_does_not_matter(some: list[PlannedFile]) -> None:
    assert runtime_digest(some) == runtime_digest(reversed(some))


@given(files, files)
def test_equal_digests_mean_that_no_path_changed(before: list[PlannedFile], after: list[PlannedFile]) -> None:
    assert (runtime_digest(before) == runtime_digest(after)) == (differing_paths(before, after) == ())


def test_path_mode_and_content_all_count() -> None:
    same_content = PlannedFile(path="c", mode=A.mode, sha256=A.sha256)
    same_path = PlannedFile(path="a", mode=0o600, sha256=A.sha256)
    assert len({runtime_digest([file]) for file in (A, B, same_content, same_path)}) == 4


def test_added_removed_and_changed_paths_are_named_in_order() -> None:
    changed = PlannedFile(path="a", mode=0o600, sha256=A.sha256)
    assert differing_paths([A, B], [changed, PlannedFile(path="0", mode=0o644, sha256=b"")]) == ("0", "a", "b")
