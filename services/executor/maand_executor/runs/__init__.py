"""The other kinds of runs, one module each: build, hooks, run_command, health_check, job_control, worker_probe, gc."""
