"""Small rules of the SSH parts: facts of a machine, signals, errors, credentials."""

from pathlib import Path

import pytest

from maand_executor.ssh import errors
from maand_executor.ssh.client_config import Hop
from maand_executor.ssh.credentials import Credentials
from maand_executor.ssh.errors import KeyUnusable, SshError
from maand_executor.ssh.execution import Capture, signal_number


def test_signals_have_numbers_and_unknown_ones_have_none() -> None:
    assert (signal_number("KILL"), signal_number("TERM"), signal_number("NOSUCH")) == (9, 15, 0)


def test_a_capture_keeps_up_to_its_limit() -> None:
    capture = Capture(5)
    for data in (b"abc", b"de", b"f", b""):
        capture.add(data)

    assert (capture.value(), capture.truncated) == (b"abcde", True)


def every_ssh_error() -> list[type[SshError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SshError)]


@pytest.mark.parametrize("kind", every_ssh_error())
def test_every_error_names_its_worker_and_has_a_code_and_a_remedy_in_its_docstring(kind: type[SshError]) -> None:
    error = kind("10.0.0.1", "went wrong")

    assert str(error) == "10.0.0.1: went wrong"
    assert error.facts["worker"] == "10.0.0.1"
    assert "{" not in error.help
    assert error.code
    assert (kind.__doc__ or "").count(".") >= 1


def test_codes_are_one_word_for_one_class() -> None:
    codes = [kind.code for kind in every_ssh_error()]

    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("name", "words"), [("", "no SSH agent is known"), ("missing.key", "cannot read the private key"), ("bad.key", "cannot use")]
)
async def test_a_key_that_cannot_be_used_is_named(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "bad.key").write_text("not a key")
    hop = Hop(name="10.0.0.1", host="10.0.0.1", port=22, user="agent")

    with pytest.raises(KeyUnusable, match=words):
        async with Credentials(tmp_path, name, environment={}).identify(hop):
            pass


def test_what_a_worker_says_in_an_error_is_cleaned_where_it_comes_in() -> None:
    error = errors.CopyFailed("10.0.0.1", "\x1b[2Jevil\x9b\n" + "x" * 10_000, found="\x07")

    assert error.message.startswith(r"\x1b[2Jevil\x9b xxx")
    assert len(error.message) == 2_000
    assert error.facts["found"] == r"\x07"


def test_a_line_that_names_the_worker_already_is_told_the_reason_and_a_jump_host_by_name() -> None:
    error = errors.WorkerUnreachable("10.0.0.1", "no SSH connection to port 22")

    assert error.reason_on("10.0.0.1") == "no SSH connection to port 22"
    assert error.reason_on("10.0.0.2") == "10.0.0.1: no SSH connection to port 22"
