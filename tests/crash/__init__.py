"""Executors that die before and after every outward act: a real catalog and a real executor, workers and hooks as models."""
