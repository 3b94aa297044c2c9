"""Part of maand."""
