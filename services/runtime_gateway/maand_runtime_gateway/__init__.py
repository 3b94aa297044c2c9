"""The runtime gateway: the HTTP API that hook processes speak, translated call by call into gRPC.

    hook ──HTTP──▶ middleware (token there? counted) ──▶ app (route, fields) ──▶ routes (one gRPC call) ──▶ catalog | executor

It has no rules and no state of its own: who may do what is decided by the catalog and the executor from the hook's token,
which the gateway forwards together with what the request claims about itself.
"""
