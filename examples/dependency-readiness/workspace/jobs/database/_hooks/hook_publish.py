"""Make a schema for every job that demands this hook, and publish which ones are ready."""

from maand import list_hook_demands, notice, put_job_variable, rollout_order, run_make_target

demands = list_hook_demands().json()
schemas = sorted({demand["demand_config"].get("schema", demand["job"]) for demand in demands})
for schema in schemas:
    run_make_target(f"schema-{schema}", worker_ip=rollout_order()[0])
put_job_variable("ready_schemas", ",".join(schemas)).raise_for_status()
notice(f"schemas ready: {', '.join(schemas) or 'none'}")
