"""The whole of maand on twenty workers that are hosts of their own: what a fleet does to a deploy."""
