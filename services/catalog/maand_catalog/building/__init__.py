"""Carrying out a build: read the files people wrote, decide by the rules, issue certificates, store the outcome at once."""
