import hashlib
import stat
from collections.abc import Iterable
from dataclasses import replace

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


def older_digest(files: Iterable[PlannedFile]) -> bytes:
    """The digest before kinds and directories were part of it."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        total.update(f"{file.path}\0{file.mode & 0o777:o}\0".encode() + file.sha256)
    return total.digest()


def test_files_have_the_digest_that_older_executors_gave_them() -> None:
    typed = [replace(one, mode=one.mode | stat.S_IFREG) for one in (A, B)]
    assert runtime_digest(typed) == older_digest((A, B))


def test_a_file_that_becomes_a_link_to_what_it_holds_is_another_tree() -> None:
    file = PlannedFile(path="cur", mode=stat.S_IFREG | 0o777, sha256=digest_of_content(b"releases"))
    link = replace(file, mode=stat.S_IFLNK | 0o777)
    assert runtime_digest([file]) != runtime_digest([link])
    assert differing_paths([file], [link]) == ("cur",)


def test_a_directory_counts_with_its_mode() -> None:
    directory = PlannedFile(path="spool", mode=stat.S_IFDIR | 0o755, sha256=b"")
    private = replace(directory, mode=stat.S_IFDIR | 0o700)
    assert len({runtime_digest([A]), runtime_digest([A, directory]), runtime_digest([A, private])}) == 3
    assert differing_paths([A, directory], [A, private]) == ("spool",)


def test_where_a_kind_was_not_recorded_it_makes_no_difference() -> None:
    link = PlannedFile(path="cur", mode=stat.S_IFLNK | 0o777, sha256=digest_of_content(b"releases"))
    assert differing_paths([replace(link, mode=0o777)], [link]) == ()
