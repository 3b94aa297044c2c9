"""What the executor answers over gRPC: `RemoteService` for hooks, `ExecutorService` for operators.

callers       who calls: a live hook, by its token
remote        RunSshCommand, SendHttpRequest: a hook reaches workers of its own job
http_rules    where a hook's HTTP request may go (pure); http_client sends it, redirects re-checked by http_proxy
executor      GetExecutorStatus
errors        with the one table from error classes to gRPC statuses
"""
