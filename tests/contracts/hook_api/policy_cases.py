"""Every cell of the table of namespaces: who reads and who writes what."""

from tests.contracts.hook_api.case import BAD, DENIED, Case, delete, get, put

READABLE: tuple[tuple[str, str, str], ...] = (
    ("api", "maand/bucket", "bucket_id"),
    ("api", "vars/bucket", "region"),
    ("api", "maand/worker", "certs/ca.crt"),
    ("api", "maand/worker/10.0.0.1", "worker_ip"),
    ("api", "maand/worker/10.0.0.1/tags", "zone"),
    ("api", "maand/job/api", "name"),
    ("api", "vars/bucket/job/api", "tier"),
    ("api", "maand/job/api/worker/10.0.0.1", "version"),
    ("api", "maand/job/api/worker/10.0.0.1", "certs/tls.key"),
    ("api", "maand/job/api/worker/10.0.0.2", "version"),
    ("api", "maand/job/api/worker/10.0.0.2", "certs/tls.crt"),
    ("api", "vars/job/api", "greeting"),
    ("api", "secrets/job/api", "token"),
    ("api", "maand/job/database", "name"),
    ("api", "vars/job/database", "schema"),
    ("api", "secrets/job/database", "password"),
    ("api_health", "vars/job/api", "greeting"),
    ("api_health", "secrets/job/api", "token"),
    ("api_peer", "maand/job/api/worker/10.0.0.1", "version"),
)
"""Policy cells that say yes to reading."""

UNREADABLE: tuple[tuple[str, str, str], ...] = (
    ("api", "maand/job/api/worker/10.0.0.2", "certs/tls.key"),
    ("api_peer", "maand/job/api/worker/10.0.0.1", "certs/tls.key"),
    ("api", "maand/worker/10.0.0.2", "worker_ip"),
    ("api", "vars/job/web", "theme"),
    ("api", "secrets/job/web", "cookie"),
    ("api", "maand/job/web", "name"),
    ("api", "maand/job/database/worker/10.0.0.3", "version"),
    ("database", "vars/job/api", "greeting"),
    ("database", "secrets/job/api", "token"),
    ("web", "secrets/job/api", "token"),
    ("web", "vars/job/api", "greeting"),
    ("api", "secrets", "token"),
    ("api", "elsewhere", "x"),
    ("api", "vars/job/api/../web", "theme"),
)
"""Policy cells that say no."""

UNWRITABLE: tuple[tuple[str, str, str], ...] = (
    ("api", "maand/bucket", "bucket_id"),
    ("api", "vars/bucket", "region"),
    ("api", "maand/worker", "certs/ca.crt"),
    ("api", "maand/worker/10.0.0.1", "worker_ip"),
    ("api", "maand/worker/10.0.0.1/tags", "zone"),
    ("api", "maand/job/api", "name"),
    ("api", "vars/bucket/job/api", "tier"),
    ("api", "maand/job/api/worker/10.0.0.1", "version"),
    ("api", "maand/job/api/worker/10.0.0.2", "version"),
    ("api", "maand/job/database", "name"),
    ("api", "vars/job/database", "schema"),
    ("api", "vars/job/web", "theme"),
    ("api_health", "vars/job/api", "greeting"),
    ("api_post_deploy", "maand/job/api", "rollout_order"),
    ("api_health", "maand/job/api", "rollout_order"),
    ("api", "maand/job/database", "rollout_order"),
    ("api", "elsewhere", "x"),
)
"""Policy cells that say no to writing and deleting with the plain call."""

UNWRITABLE_SECRETS: tuple[tuple[str, str], ...] = (
    ("api", "secrets/job/database"),
    ("api", "secrets/job/web"),
    ("api", "vars/job/api"),
    ("api_health", "secrets/job/api"),
    ("web", "secrets/job/api"),
)
"""Policy cells that say no to the secret call."""


def policy_cases() -> tuple[Case, ...]:
    """Every cell of the specification's table."""
    return (
        *(Case(name=f"{caller} reads {ns} {key}", steps=(get(ns, key, caller=caller),)) for caller, ns, key in READABLE),
        *(
            Case(name=f"{caller} may not read {ns} {key}", steps=(get(ns, key, caller=caller, status=403),))
            for caller, ns, key in UNREADABLE
        ),
        *(
            Case(
                name=f"{caller} may not write {ns} {key}",
                steps=(
                    put(key, "10.0.0.2,10.0.0.1", namespace=ns, caller=caller, **DENIED),
                    delete(key, namespace=ns, caller=caller, **DENIED),
                ),
            )
            for caller, ns, key in UNWRITABLE
        ),
        *(
            Case(
                name=f"{caller} may not write secrets in {ns}",
                steps=(
                    put("k", "v", namespace=ns, path="/kv/secret", caller=caller, **DENIED),
                    delete("k", namespace=ns, path="/kv/secret", caller=caller, **DENIED),
                ),
            )
            for caller, ns in UNWRITABLE_SECRETS
        ),
        *(
            Case(
                name=f"{caller} sets the rollout order, and only a permutation",
                steps=(
                    put("rollout_order", "10.0.0.2,10.0.0.1", namespace="maand/job/api", caller=caller),
                    put("rollout_order", "10.0.0.2", namespace="maand/job/api", caller=caller, **BAD),
                    put("rollout_order", "10.0.0.1,10.0.0.2", namespace="maand/job/api", caller=caller),
                ),
            )
            for caller in ("api", "api_cli")
        ),
    )
