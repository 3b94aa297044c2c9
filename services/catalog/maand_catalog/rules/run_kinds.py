"""The kinds of runs: which hold the bucket, and which another executor may take over.

|              | holds the bucket    | taken over | why not                                                            |
|--------------|---------------------|------------|--------------------------------------------------------------------|
| build        | yes                 | yes        |                                                                    |
| deploy       | unless a dry run    | yes        |                                                                    |
| hooks        | no                  | yes        | hooks are written to be repeated                                   |
| run_command  | no                  | no         | a person's shell command is not known to be safe to run twice      |
| health_check | no                  | yes        |                                                                    |
| job_control  | unless it reports   | yes        |                                                                    |
| worker_probe | no                  | yes        |                                                                    |
| gc           | yes                 | yes        |                                                                    |
"""

import enum


class RunKind(enum.StrEnum):
    """What a run does. The words are those of the contract's `RunSpec`."""

    BUILD = "build"
    DEPLOY = "deploy"
    HOOKS = "hooks"
    RUN_COMMAND = "run_command"
    HEALTH_CHECK = "health_check"
    JOB_CONTROL = "job_control"
    WORKER_PROBE = "worker_probe"
    GC = "gc"


EXCLUSIVE = frozenset({RunKind.BUILD, RunKind.DEPLOY, RunKind.JOB_CONTROL, RunKind.GC})
TAKEN_OVER = frozenset(RunKind) - {RunKind.RUN_COMMAND}


def holds_bucket(kind: RunKind, *, only_looks: bool) -> bool:
    """Whether a run keeps other exclusive runs out. `only_looks`: a deploy's dry run, a job's status."""
    if kind in (RunKind.DEPLOY, RunKind.JOB_CONTROL):
        return not only_looks
    return kind in EXCLUSIVE
