"""What a Python hook says to maand: one file, standard library only, Python 3.9 or newer. maand puts it beside the hook.

    from maand import get_kv_value, is_one_shot, put_job_secret

    if is_one_shot():
        put_job_secret("admin_password", "…", if_absent=True).raise_for_status()
    print(get_kv_value("maand/bucket", "bucket_id"))

Context functions read the environment that maand gives the hook. Everything else asks the runtime API on this machine
(docs/hook-api.md) and returns a `Response`, or raises `MaandError` when the API cannot be reached.

A hook starts in milliseconds, so this file imports next to nothing: it speaks HTTP/1.1 over the interpreter's own socket type
and uses the C half of `json` directly. `import socket, json` would double the start of a hook.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing itself is never imported
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Any, Optional, Union

__all__ = [
    "MaandError",
    "Response",
    "SSHError",
    "SSHResult",
    "acquire_semaphore",
    "allocation_id",
    "allocation_index",
    "allocation_ip",
    "batch_allocations",
    "batch_count",
    "batch_index",
    "call_api",
    "current_version",
    "delete_job_secret",
    "delete_job_variable",
    "get_allocation_id",
    "get_allocation_ip",
    "get_demands",
    "get_event",
    "get_job",
    "get_kv_value",
    "get_rollout_order",
    "get_store_value",
    "hook_event",
    "hook_name",
    "http_request",
    "is_allocation_disabled",
    "is_one_shot",
    "job_name",
    "kv_get",
    "kv_put",
    "kv_put_secret",
    "list_hook_demands",
    "list_job_keys",
    "new_allocations",
    "new_version",
    "notice",
    "put_job_secret",
    "put_job_variable",
    "put_rollout_order",
    "release_semaphore",
    "rollout_order",
    "run_make_target",
    "run_ssh",
    "semaphore",
    "semaphore_status",
    "updated_allocations",
]  # fmt: skip

NOTICE_PREFIX = "::maand-notice:: "
"""A line on standard output that begins so becomes a notice of the run."""

_CALL_TIMEOUT = 60.0  # seconds for calls that only read or write
_WAIT_MARGIN = 60.0  # seconds added to a timeout that the service itself keeps
_IDLE_LIMIT = 30.0  # seconds; the gateway keeps idle connections longer, so a kept one is still open
_REQUIRED: Any = object()


# --- errors and answers -----------------------------------------------------------------------------------------------


class MaandError(Exception):
    """The runtime API refused a call, or could not be reached (then `status_code` is 0). The message says what to do.

    >>> try:
    ...     put_job_variable("leader", "10.0.0.1", if_absent=True).raise_for_status()
    ... except MaandError as error:
    ...     print(error.code, error.details.get("current_version"))
    """

    def __init__(self, message: str, *, status_code: int = 0, code: str = "", details: Optional[dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.details = details or {}


class SSHError(MaandError):
    """A command on a worker failed. `result` is what it printed and how it ended.

    >>> try:
    ...     run_ssh(allocation_ip(), "systemctl restart api")
    ... except SSHError as error:
    ...     print(error.result.returncode, error.result.stderr)
    """

    def __init__(self, result: SSHResult) -> None:
        how = "timed out" if result.timed_out else f"failed with exit code {result.returncode}"
        output = (result.stderr.strip() or result.stdout.strip())[-2000:]
        super().__init__(f"`{result.command}` on {result.worker} {how}" + (f":\n{output}" if output else ""), code="ssh_failed")
        self.result = result


class Response:
    """An answer of the runtime API.

    >>> response = get_store_value("vars/job/api", "leader")
    >>> response.ok, response.status_code
    (True, 200)
    >>> response.json()["value"]
    '10.0.0.1'
    """

    __slots__ = ("content", "headers", "status_code")

    def __init__(self, status_code: int, headers: dict[str, str], content: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return 200 <= self.status_code < 300

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the body read as JSON."""
        return _from_json(self.text)

    def raise_for_status(self) -> None:
        """Raise `MaandError` with the API's message unless the call succeeded."""
        if self.ok:
            return
        try:
            error = self.json()["error"]
            message, code, details = error["message"], error["code"], error["details"]
        except (ValueError, KeyError, TypeError):
            raise MaandError(f"the runtime API answered {self.status_code}", status_code=self.status_code) from None
        raise MaandError(message, status_code=self.status_code, code=code, details=details)

    def __repr__(self) -> str:
        return f"<Response {self.status_code}>"


class SSHResult:
    """How a command on a worker ended.

    >>> result = run_ssh("10.0.0.1", "test -e /etc/api.conf", check=False)
    >>> result.ok, result.returncode
    (False, 1)
    """

    def __init__(self, worker: str, command: str, answer: Mapping[str, Any]) -> None:
        self.worker = worker
        self.command = command
        self.returncode: int = answer["exit_code"]
        self.stdout: str = answer["stdout"]
        self.stderr: str = answer["stderr"]
        self.timed_out: bool = answer["timed_out"]
        self.truncated: bool = answer["truncated"]
        self.duration_ms: int = answer["duration_ms"]

    @property
    def ok(self) -> bool:
        """Whether the command exited with 0."""
        return self.returncode == 0 and not self.timed_out

    def raise_for_status(self) -> None:
        """Raise `SSHError` unless the command exited with 0."""
        if not self.ok:
            raise SSHError(self)

    def __repr__(self) -> str:
        return f"<SSHResult {self.worker} exit code {self.returncode}>"


# --- context: who and where this invocation is ------------------------------------------------------------------------


def _environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise MaandError(f"{name} is not set: maand sets it for hooks; on a laptop, use `maand hooks test JOB HOOK`")
    return value


def _list(name: str) -> list[str]:
    return [entry.strip() for entry in os.environ.get(name, "").split(",") if entry.strip()]


def allocation_id() -> str:
    """Return the id of this allocation, a UUID that stays the same across deploys.

    >>> allocation_id()
    'd7a7a0a2-8e1c-5d0c-9f4f-0f2f8c6f7f10'
    """
    return _environment("ALLOCATION_ID")


def allocation_ip() -> str:
    """Return the worker of this allocation, as in workers.json.

    >>> run_ssh(allocation_ip(), "uptime")
    """
    return _environment("ALLOCATION_IP")


def allocation_index() -> int:
    """Return the index of this allocation among the job's, from 0.

    >>> server_id = allocation_index() + 1
    """
    return int(_environment("ALLOCATION_INDEX"))


def job_name() -> str:
    """Return the job this hook belongs to.

    >>> job_name()
    'api'
    """
    return _environment("JOB")


def hook_name() -> str:
    """Return the name of this hook.

    >>> hook_name()
    'hook_migrate'
    """
    return _environment("HOOK")


def hook_event() -> str:
    """Return the event on which this hook runs.

    >>> if hook_event() == "pre_deploy":
    ...     ...
    """
    return _environment("EVENT")


def current_version() -> str:
    """Return the version that runs now; '0.0.0' before the first promotion.

    >>> first_deploy = current_version() == "0.0.0"
    """
    return _environment("CURRENT_VERSION")


def new_version() -> str:
    """Return the version that is being deployed.

    >>> new_version()
    '2.1.0'
    """
    return _environment("NEW_VERSION")


def is_allocation_disabled() -> bool:
    """Return whether this allocation is disabled.

    >>> if is_allocation_disabled():
    ...     notice("leaving the cluster for good")
    """
    return os.environ.get("DISABLED") == "1"


def is_one_shot() -> bool:
    """Return whether this is the one invocation that does what must be done once: first allocation of the first batch.

    >>> if not is_one_shot():
    ...     raise SystemExit
    """
    return batch_index() == 0 and batch_allocations()[:1] == [allocation_ip()]


def batch_index() -> int:
    """Return the index of this batch, from 0.

    >>> print(f"batch {batch_index() + 1} of {batch_count()}")
    """
    return int(_environment("BATCH_INDEX"))


def batch_count() -> int:
    """Return how many batches there are.

    >>> last_batch = batch_index() == batch_count() - 1
    """
    return int(_environment("BATCH_COUNT"))


def batch_allocations() -> list[str]:
    """Return the workers of this batch, in rollout order.

    >>> batch_allocations()
    ['10.0.0.1', '10.0.0.2']
    """
    return _list("BATCH_ALLOCATIONS")


def rollout_order() -> list[str]:
    """Return all workers of this rollout, first to last.

    >>> leader = rollout_order()[-1]
    """
    return _list("ROLLOUT_ORDER")


def new_allocations() -> list[str]:
    """Return the workers to be started (`job_control` in deploy).

    >>> if allocation_ip() in new_allocations():
    ...     run_make_target("start")
    """
    return _list("NEW_ALLOCATIONS")


def updated_allocations() -> list[str]:
    """Return the workers to be brought up to date (`job_control` in deploy).

    >>> if allocation_ip() in updated_allocations():
    ...     run_make_target("restart")
    """
    return _list("UPDATED_ALLOCATIONS")


# --- key-value store --------------------------------------------------------------------------------------------------


def get_store_value(namespace: str, key: str) -> Response:
    """Read a value; secrets come decrypted. Status 404 when the key is absent.

    >>> get_store_value("vars/job/api", "leader").json()
    {'namespace': 'vars/job/api', 'key': 'leader', 'value': '10.0.0.1', 'version': 3}
    """
    return call_api("GET", "/kv", {"namespace": namespace, "key": key})


def get_kv_value(namespace: str, key: str, default: Any = _REQUIRED) -> str:
    """Return a value as text. An absent key gives `default`, or raises `KeyError` without one.

    >>> get_kv_value("vars/job/api", "leader", default="")
    '10.0.0.1'
    """
    response = get_store_value(namespace, key)
    if response.status_code != 404:
        response.raise_for_status()
        value: str = response.json()["value"]
        return value
    if default is _REQUIRED:
        raise KeyError(f"{namespace} {key}")
    result: str = default
    return result


def put_job_variable(key: str, value: str, ttl: int = 0, if_version: Optional[int] = None, if_absent: bool = False) -> Response:
    """Write a variable of this job. `ttl` is seconds (0 = it stays). Status 409 when a precondition is lost.

    >>> put_job_variable("leader", allocation_ip(), if_absent=True).status_code
    409
    """
    return _put("/kv", f"vars/job/{job_name()}", key, value, ttl, if_version, if_absent)


def put_job_secret(key: str, value: str, ttl: int = 0, if_version: Optional[int] = None, if_absent: bool = False) -> Response:
    """Write a secret of this job, stored encrypted and masked in all output. As `put_job_variable`.

    >>> import secrets
    >>> put_job_secret("token", secrets.token_urlsafe(32), if_absent=True)
    """
    return _put("/kv/secret", f"secrets/job/{job_name()}", key, value, ttl, if_version, if_absent)


def delete_job_variable(key: str) -> Response:
    """Delete a variable of this job. Status 404 when it is absent.

    >>> delete_job_variable("leader").ok
    True
    """
    return call_api("DELETE", "/kv", {"namespace": f"vars/job/{job_name()}", "key": key})


def delete_job_secret(key: str) -> Response:
    """Delete a secret of this job. Status 404 when it is absent.

    >>> delete_job_secret("bootstrap_token").ok
    True
    """
    return call_api("DELETE", "/kv/secret", {"namespace": f"secrets/job/{job_name()}", "key": key})


def list_job_keys(namespace: Optional[str] = None) -> Response:
    """List keys of a namespace, or of this job's variables and secrets.

    >>> list_job_keys().json()["namespaces"]
    {'secrets/job/api': ['token'], 'vars/job/api': ['leader']}
    """
    return call_api("GET", "/kv/keys", {} if namespace is None else {"namespace": namespace})


def put_rollout_order(order: Union[str, Iterable[str]]) -> Response:
    """Set the order of the next rollout: a permutation of the job's active workers. In `pre_deploy` and `cli` hooks.

    >>> workers = rollout_order()
    >>> put_rollout_order([w for w in workers if w != leader] + [leader]).raise_for_status()
    """
    workers = order if isinstance(order, str) else ",".join(order)
    return _put("/kv", f"maand/job/{job_name()}", "rollout_order", workers)


def get_rollout_order() -> Response:
    """Read the rollout order in the store, comma-joined in `value`.

    >>> get_rollout_order().json()["value"].split(",")
    ['10.0.0.2', '10.0.0.1']
    """
    return get_store_value(f"maand/job/{job_name()}", "rollout_order")


def list_hook_demands() -> Response:
    """List the hooks of other jobs that demand this hook.

    >>> [demand["job"] for demand in list_hook_demands().json()]
    ['api', 'reports']
    """
    return call_api("GET", "/demands")


def _put(
    path: str,
    namespace: str,
    key: str,
    value: str,
    ttl: int = 0,
    if_version: Optional[int] = None,
    if_absent: bool = False,
) -> Response:
    fields: dict[str, Any] = {"namespace": namespace, "key": key, "value": value}
    if ttl:
        fields["ttl"] = ttl
    if if_version is not None:
        fields["if_version"] = if_version
    if if_absent:
        fields["if_absent"] = True
    return call_api("PUT", path, fields)


# --- semaphores -------------------------------------------------------------------------------------------------------


def acquire_semaphore(name: str, capacity: int = 1, timeout_seconds: int = 600) -> Response:
    """Wait for a slot; first come, first served, among the job's invocations on this event. Status 408 when not granted in time.

    A slot belongs to this process: however it ends, the slot is free again.

    >>> acquire_semaphore("migrate").json()["fencing_token"]
    7
    """
    fields = {"name": name, "capacity": capacity, "timeout_seconds": timeout_seconds}
    return call_api("POST", "/semaphore/acquire", fields, timeout=timeout_seconds + _WAIT_MARGIN)


def release_semaphore(name: str) -> Response:
    """Give the slot back. Status 409 when this process holds none.

    >>> release_semaphore("migrate").ok
    True
    """
    return call_api("POST", "/semaphore/release", {"name": name})


def semaphore_status(name: str) -> Response:
    """See who is in a semaphore.

    >>> semaphore_status("migrate").json()
    {'name': 'migrate', 'capacity': 1, 'holders': [], 'waiting': 0, 'available': 1}
    """
    return call_api("GET", "/semaphore/status", {"name": name})


def semaphore(name: str, capacity: int = 1, timeout_seconds: int = 600) -> _Slot:
    """Hold a slot for the length of a `with` block: acquire or raise, always release.

    >>> with semaphore("migrate") as slot:
    ...     migrate(fence=slot.fencing_token)
    """
    return _Slot(name, capacity, timeout_seconds)


class _Slot:
    """A slot of a semaphore, as a context manager."""

    def __init__(self, name: str, capacity: int, timeout_seconds: int) -> None:
        self.name = name
        self.capacity = capacity
        self.timeout_seconds = timeout_seconds
        self.fencing_token = 0

    def __enter__(self) -> _Slot:
        response = acquire_semaphore(self.name, self.capacity, self.timeout_seconds)
        response.raise_for_status()
        self.fencing_token = response.json()["fencing_token"]
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        try:
            release_semaphore(self.name).raise_for_status()
        except MaandError:
            if error is None:  # the error of the block says more than this one
                raise


# --- workers ----------------------------------------------------------------------------------------------------------


def run_ssh(
    worker_ip: str,
    command: str,
    *,
    timeout: int = 300,
    check: bool = True,
    stdin: Optional[str] = None,
    check_host: bool = False,
) -> SSHResult:
    """Run a shell command line on a worker of this job. `check=True` raises `SSHError` when it fails.

    `MaandError` says that it did not run: worker unreachable (502), not a worker of this job (403). `check_host` refuses a
    worker that belongs to another bucket.

    >>> run_ssh(allocation_ip(), "systemctl is-active api").stdout.strip()
    'active'
    """
    fields: dict[str, Any] = {"worker": worker_ip, "command": command, "timeout_seconds": timeout}
    if stdin is not None:
        fields["stdin"] = stdin
    if check_host:
        fields["check_host"] = True
    response = call_api("POST", "/ssh", fields, timeout=timeout + _WAIT_MARGIN)
    response.raise_for_status()
    result = SSHResult(worker_ip, command, response.json())
    if check:
        result.raise_for_status()
    return result


def run_make_target(target: str, *, worker_ip: Optional[str] = None, job: Optional[str] = None, timeout: int = 300) -> SSHResult:
    """Run `make -C <job directory> <target>` on a worker, as a deploy does; raises `SSHError` when it fails.

    `MaandError` for a target that make would take for an option (`-n`) or a variable (`SHELL=…`).

    >>> run_make_target("reload")
    >>> run_make_target("backup", worker_ip=rollout_order()[0])
    """
    if not target or target[0] == "-" or "=" in target:
        raise MaandError(f"{target!r} is not a make target: name a rule of the Makefile", code="invalid_argument")
    worker = worker_ip or allocation_ip()
    directory = _environment("JOB_PATH")
    if job is not None and job != job_name():
        directory = f"{directory.rstrip('/').rpartition('/')[0]}/{job}"
    variables = {
        "JOB": job or job_name(),
        "CURRENT_VERSION": current_version(),
        "NEW_VERSION": new_version(),
        "ALLOCATION_IP": worker,
    }
    if worker == allocation_ip():
        variables["ALLOCATION_INDEX"] = str(allocation_index())
    assignments = " ".join(f"{name}={_quoted(value)}" for name, value in variables.items())
    return run_ssh(worker, f"env {assignments} make -s -C {_quoted(directory)} -- {_quoted(target)}", timeout=timeout)


def http_request(
    method: str,
    url: str,
    headers: Optional[dict[str, str]] = None,
    body: str = "",
    timeout_seconds: int = 30,
    tls: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    """Send an HTTP request to a worker of this job, from maand's machine; trusts the bucket's CA.

    Returns `status_code`, `headers` (lower-case names), `body`, `truncated`. `tls` may hold `client_certificate` (name of a
    certificate of the manifest), `server_name`, `insecure_skip_verify`.

    >>> http_request("GET", f"https://{allocation_ip()}:8443/healthz")["status_code"]
    200
    """
    fields: dict[str, Any] = {"method": method, "url": url, "timeout_seconds": timeout_seconds}
    fields.update({name: value for name, value in (("headers", headers), ("body", body), ("tls", tls)) if value})
    response = call_api("POST", "/http", fields, timeout=timeout_seconds + _WAIT_MARGIN)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def _quoted(text: str) -> str:
    """Quote for a shell."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def notice(text: str) -> None:
    """Put a line into the summary of the run.

    >>> notice("schema is at version 42")
    """
    for line in str(text).splitlines():
        print(NOTICE_PREFIX + line, flush=True)  # noqa: T201 - standard output is how a hook speaks


# --- the runtime API --------------------------------------------------------------------------------------------------


def call_api(method: str, path: str, fields: Optional[Mapping[str, Any]] = None, *, timeout: float = _CALL_TIMEOUT) -> Response:
    """Call any route of the runtime API; the functions above all go through here.

    `MaandError` when no answer came: the gateway cannot be reached, or was lost after a request that must not be repeated.

    >>> call_api("GET", "/kv", {"namespace": "vars/job/api", "key": "leader", "version": 1}).json()["value"]
    '10.0.0.3'
    """
    host, port = os.environ.get("HOOK_API_HOST", "127.0.0.1"), os.environ.get("HOOK_API_PORT", "8080")
    request = _request(method, path, fields or {}, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    connection = _take(host, port, timeout)
    try:
        return _exchange(connection, request, timeout)
    except OSError as error:
        if not connection.was_idle or path in _ONCE or isinstance(error, _timeout_errors()):
            raise _unreachable(host, port, error) from error
    try:  # the idle connection ended under our hands, and this request may be repeated
        return _exchange(_connect(host, port, timeout), request, timeout)
    except OSError as error:
        raise _unreachable(host, port, error) from error


_ONCE = frozenset({"/ssh", "/http", "/semaphore/release"})
"""Paths of requests that are not repeated when a kept connection ended under our hands."""


def _request(method: str, path: str, fields: Mapping[str, Any], host: str) -> bytes:
    """Write the request; `GET` and `DELETE` carry their fields in the query."""
    head = [f"{method} {path}{_query(fields) if method in ('GET', 'DELETE') else ''} HTTP/1.1", f"Host: {host}"]
    head += [f"{name}: {_environment(variable)}" for name, variable in _IDENTITY if variable in os.environ]
    if "HOOK_API_TOKEN" in os.environ:
        head.append(f"Authorization: Bearer {_environment('HOOK_API_TOKEN')}")
    if method == "DELETE" or path == "/semaphore/acquire" or "if_version" in fields or "if_absent" in fields:
        head.append(f"X-REQUEST-ID: {os.urandom(16).hex()}")  # a repeat then returns the first outcome
    body = b""
    if method not in ("GET", "DELETE"):
        body = _to_json(dict(fields)).encode()
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if any("\r" in line or "\n" in line for line in head):
        raise MaandError("one of HOOK_API_TOKEN, ALLOCATION_ID, HOOK, EVENT, TRACEPARENT holds a line break; leave them as set")
    return "\r\n".join((*head, "", "")).encode("utf-8") + body


_IDENTITY = (("X-ALLOCATION-ID", "ALLOCATION_ID"), ("HOOK", "HOOK"), ("EVENT", "EVENT"), ("traceparent", "TRACEPARENT"))


def _query(fields: Mapping[str, Any]) -> str:
    pairs = [
        f"{name}={_percent(str(value).lower() if isinstance(value, bool) else str(value))}" for name, value in fields.items()
    ]
    return "?" + "&".join(pairs) if pairs else ""


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


def _percent(text: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


class _Connection:
    """One open connection, with what was read beyond the last answer."""

    def __init__(self, host: str, port: str, timeout: float) -> None:
        socket = _socket()
        self.address = (host, port)
        self.process = os.getpid()
        self.was_idle = False
        self.idle_since = 0.0
        self.buffer = b""
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect((host, int(port)))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self._socket.close()
            raise

    def send(self, data: bytes, timeout: float) -> None:
        self._socket.settimeout(timeout)
        self._socket.sendall(data)

    def read(self) -> bytes:
        return bytes(self._socket.recv(65536))

    def is_fresh(self) -> bool:
        """Whether an idle connection is still open: nothing has come in, not even its end."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._socket.close()


_idle: list[_Connection] = []  # at most one; list operations are atomic, so threads need no lock


def _take(host: str, port: str, timeout: float) -> _Connection:
    """Use the idle connection if it is this process's own and still open; else connect."""
    try:
        connection = _idle.pop()
    except IndexError:
        return _connect(host, port, timeout)
    own = connection.process == os.getpid() and connection.address == (host, port)
    if own and _now() - connection.idle_since < _IDLE_LIMIT and connection.is_fresh():
        connection.was_idle = True
        return connection
    connection.close()
    return _connect(host, port, timeout)


def _connect(host: str, port: str, timeout: float) -> _Connection:
    """Connect; a gateway that just restarts is waited for, five seconds at most: nothing was sent yet."""
    for pause in (*(_CONNECT_PAUSES if "HOOK_API_TOKEN" in os.environ else ()), 0.0):
        try:
            return _Connection(host, port, timeout)
        except (OSError, ValueError) as error:
            if not pause or not isinstance(error, ConnectionRefusedError):
                raise _unreachable(host, port, error) from error
        _sleep(pause)
    raise AssertionError("the last pause is none")


_CONNECT_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)  # seconds; by hand, without a token, nobody is waited for


def _keep(connection: _Connection, response: Response) -> None:
    """Keep one idle connection for the next call."""
    if _idle or response.headers.get("connection", "").lower() == "close" or connection.buffer:
        connection.close()
        return
    connection.idle_since = _now()
    _idle.append(connection)


def _exchange(connection: _Connection, request: bytes, timeout: float) -> Response:
    """Send a request, read its answer, and keep the connection; `OSError` closes it."""
    try:
        _send(connection, request, timeout)
        response = _receive(connection)
    except OSError:
        connection.close()
        raise
    _keep(connection, response)
    return response


def _send(connection: _Connection, request: bytes, timeout: float) -> None:
    """Send a request. On a new connection a broken pipe is no end yet: the answer may be there before all was sent (413)."""
    try:
        connection.send(request, timeout)
    except (BrokenPipeError, ConnectionResetError):
        if connection.was_idle:
            raise


def _receive(connection: _Connection) -> Response:
    """Read one answer."""
    head, _, rest = _read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = int(headers.get("content-length", "0"))
    while len(rest) < length:
        rest += _more(connection)
    connection.buffer = rest[length:]
    return Response(int(lines[0].split(" ")[1]), headers, rest[:length])


def _read_until(connection: _Connection, mark: bytes) -> bytes:
    data = connection.buffer
    while mark not in data:
        data += _more(connection)
    return data


def _more(connection: _Connection) -> bytes:
    data = connection.read()
    if not data:
        raise ConnectionResetError("the connection ended before the answer was complete")
    return data


def _unreachable(host: str, port: str, error: Exception) -> MaandError:
    if isinstance(error, _timeout_errors()):
        return MaandError(f"the runtime API at {host}:{port} did not answer in time", code="timeout")
    return MaandError(
        f"the runtime API at {host}:{port} could not be reached ({error}); it serves while maand runs this hook",
        code="unreachable",
    )


def _timeout_errors() -> tuple[type[BaseException], ...]:
    return (TimeoutError, _socket().timeout)  # two classes before Python 3.10


def _socket() -> Any:
    try:
        import _socket as socket
    except ImportError:
        import socket  # type: ignore[no-redef]
    return socket


def _now() -> float:
    import time

    return time.monotonic()


def _sleep(seconds: float) -> None:
    import time

    time.sleep(seconds)


def _to_json(value: Any) -> str:
    """Write JSON; the plain types that routes take without importing `json`."""
    try:
        from _json import encode_basestring_ascii as quoted
    except ImportError:
        from json.encoder import encode_basestring_ascii as quoted
    if isinstance(value, str):
        return str(quoted(value))
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{quoted(str(name))}:{_to_json(part)}" for name, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_to_json, value)) + "]"
    raise MaandError(f"a value of type {type(value).__name__} cannot be sent; send text, numbers, booleans, lists and dicts")


class _Scanning:
    """Settings of the C scanner of `json`."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_int = int
    parse_float = parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own


def _from_json(text: str) -> Any:
    """Read JSON with the C scanner; with `json` where that is not to be had, and for its error messages."""
    try:
        from _json import make_scanner

        scan: Any = make_scanner  # what it is given is read attribute by attribute, as `json.decoder.JSONDecoder` is
        value, end = scan(_Scanning)(text, 0)
        if end == len(text):
            return value
    except (ImportError, AttributeError, TypeError, StopIteration):
        pass
    import json

    return json.loads(text)


# --- other names for the same -----------------------------------------------------------------------------------------

get_allocation_id = allocation_id
get_allocation_ip = allocation_ip
get_job = job_name
get_event = hook_event
kv_get = get_store_value
kv_put = put_job_variable
kv_put_secret = put_job_secret
get_demands = list_hook_demands
