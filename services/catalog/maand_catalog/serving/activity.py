"""How busy a catalog is: when it was last called, and how many streams are open. The local host stops it when it is idle."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Counts calls. `last_call_at` is in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.last_call_at = time.monotonic()
        self.open_streams = 0

    def called(self) -> None:
        """Remember that something was asked right now."""
        self.last_call_at = time.monotonic()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream for as long as it is open; its end counts as a call."""
        self.open_streams += 1
        try:
            yield
        finally:
            self.open_streams -= 1
            self.called()
