"""A run from here: upload what it needs, start it, follow it to its end, conclude with a summary and an exit code."""
