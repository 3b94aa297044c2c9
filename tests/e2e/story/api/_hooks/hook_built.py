"""Leaves a mark that the build ran its hooks."""

from maand import put_job_variable

put_job_variable("built", "yes").raise_for_status()
