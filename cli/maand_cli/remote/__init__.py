"""The catalog and the executor as commands ask them: channels, sessions, rows of listings."""
