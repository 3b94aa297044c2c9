"""Publishes the schema for those who demand it."""

from maand import list_hook_demands, put_job_variable

demands = list_hook_demands()
demands.raise_for_status()
put_job_variable("schema", "v7").raise_for_status()
print("demanded by", ",".join(f"{d['job']}/{d['hook']}:{d['demand_config']}" for d in demands.json()))
