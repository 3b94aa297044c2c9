import errno
from pathlib import Path

import grpc
import pytest

from maand_wire.errors import ErrorBoundary, RemoteError
from maand_wire.host_faults import HostFault, find_host_fault, host_faults_at


@pytest.mark.parametrize(
    ("error", "words", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full on ", "free some space"),
        (OSError(errno.EROFS, "Read-only file system", "/b/tmp"), "where maand runs: /b/tmp", "writable"),
        (OSError(errno.EMFILE, "Too many open files"), "no file descriptor is left on ", "ulimit -n"),
        (MemoryError(), "no memory is left on ", "ulimit -v"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no further process", "ulimit -u"),
        (RuntimeError("can't start new thread"), "no further process or thread", "ulimit -u"),
    ],
)
def test_what_the_machine_refuses_is_told_with_its_remedy(error: Exception, words: str, remedy: str) -> None:
    fault = find_host_fault(error)
    assert fault
    assert words in str(fault)
    assert remedy in fault.help


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionResetError(errno.ECONNRESET, "x"), FileNotFoundError(2, "x"), RuntimeError("x")]
)
def test_anything_else_is_no_fault_of_the_machine(error: Exception) -> None:
    assert find_host_fault(error) is None


def test_a_full_disk_is_told_with_the_directory() -> None:
    with pytest.raises(HostFault, match="where maand runs: /b/tmp/staging"), host_faults_at(Path("/b/tmp/staging")):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_caller_hears_of_it_as_temporary() -> None:
    status = ErrorBoundary({}).status_of(OSError(errno.ENOSPC, "No space left on device"))
    assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert "the disk is full" in status.message
    assert RemoteError(grpc.StatusCode.UNAVAILABLE, status.message, code="host_fault").is_temporary
