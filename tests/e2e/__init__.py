"""The whole path, the command line as a process."""

import pytest

pytest.register_assert_rewrite("tests.e2e.the_story")
