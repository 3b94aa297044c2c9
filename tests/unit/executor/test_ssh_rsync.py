"""rsync's arguments and account."""

from datetime import timedelta
from pathlib import Path

import pytest

from maand_executor.ssh.copy import copy_failure
from maand_executor.ssh.errors import CopyFailed, SudoRefused
from maand_executor.ssh.rsync import CopyResult, local_arguments, main_message, parse_stats, rsh_word, serve_script

SILENCE = timedelta(seconds=30)


def test_kept_directories_are_excluded_at_the_top_only() -> None:
    arguments = local_arguments(source=Path("/s"), target="t", excludes=("data", "logs"), silence=SILENCE)

    assert [argument for argument in arguments if "exclude" in argument] == ["--exclude=/data", "--exclude=/logs"]
    assert arguments[-3:] == ["--", "/s/", "worker:t/"]


def test_content_decides_and_deletions_come_last() -> None:
    arguments = local_arguments(source=Path("/s"), target="t", excludes=(), silence=SILENCE)

    assert {"--checksum", "--delete-after", "--delay-updates", "--perms", "--protect-args"} <= set(arguments)
    assert not {"--times", "--archive", "--owner", "--group"} & set(arguments)


def test_the_remote_shell_is_quoted_as_rsync_unquotes() -> None:
    assert rsh_word('say "hi"') == '"say ""hi"""'


def test_the_script_on_the_worker_makes_the_target_and_quotes_everything() -> None:
    script = serve_script(["rsync", "--server", ".", "c d"], target="/a b")

    assert script == "umask 022; [ -d '/a b' ] || mkdir -p -- '/a b'; rsync --server . 'c d'"


def test_stats_are_read() -> None:
    text = (
        "Number of files: 1,234 (reg: 1,200, dir: 34)\nNumber of deleted files: 12 (reg: 12)\n"
        "Number of regular files transferred: 1,003\nTotal file size: 99 bytes\nTotal transferred file size: 45 bytes\n"
    )

    assert parse_stats(text) == CopyResult(files_transferred=1003, files_deleted=12, bytes_sent=45)
    assert not parse_stats("").changed


def test_the_first_complaint_is_the_message() -> None:
    stderr = '\nrsync: [sender] change_dir "/x" failed: No such file or directory (2)\nrsync error: some files … (code 23)\n'

    assert main_message(stderr) == 'rsync: [sender] change_dir "/x" failed: No such file or directory (2)'
    assert main_message("rsync error: only this (code 12)") == "rsync error: only this (code 12)"
    assert main_message("") == "rsync said nothing"


@pytest.mark.parametrize(
    ("complaints", "kind", "words"),
    [
        ("sudo: a password is required\n", SudoRefused, "a password is required"),
        ("sh: 1: exec: rsync: not found\n", CopyFailed, "rsync is not installed there"),
        ("mkdir: cannot create directory: Permission denied\n", CopyFailed, "Permission denied"),
        ("", CopyFailed, "code 12"),
    ],
)
def test_what_the_worker_said_explains_more_than_what_rsync_made_of_it(complaints: str, kind: type, words: str) -> None:
    error = copy_failure("w", 12, "rsync error: closed (code 12)\n", complaints)

    assert type(error) is kind
    assert words in str(error)
