"""What every test may use: the test bed's fixtures."""

pytest_plugins = ["tests.testbed.fixtures"]
