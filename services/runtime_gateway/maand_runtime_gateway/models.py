"""What routes take and give: one model each, the source of validation and of the OpenAPI document.

Numbers are bounded by what the contracts can carry and promise; names and namespaces are judged by the catalog.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

TEN_YEARS = 315_360_000


class Fields(BaseModel):
    """Fields of a request. Unknown ones are errors: a misspelt `if_version` must not become an unconditional write."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """Fields of a response."""

    model_config = ConfigDict(extra="forbid")


Namespace = Annotated[str, Field(description="Namespace, for example `vars/job/api`.", examples=["vars/job/api"])]
SecretNamespace = Annotated[str, Field(description="The job's own: `secrets/job/<job>`.", examples=["secrets/job/api"])]
Key = Annotated[str, Field(description="Key inside the namespace.", examples=["leader"])]
SemaphoreName = Annotated[str, Field(description="Name: 1 to 128 characters, no control characters.", examples=["migrate"])]
Version = Annotated[int, Field(ge=1, lt=2**63, description="Version of the entry: 1, 2, 3 … per key.")]


class KvGet(Fields):
    """Names one value."""

    namespace: Namespace
    key: Key
    version: Version | None = Field(default=None, description="Version to read; the newest when left out.")


class KvPut(Fields):
    """One write."""

    namespace: Namespace
    key: Key
    value: str = Field(description="Text of at most 1 MiB; may be empty.")
    ttl: int = Field(default=0, ge=0, le=TEN_YEARS, description="Seconds until the value is absent; 0 = it stays.")
    if_version: Version | None = Field(default=None, description="Write only when this is the current version.")
    if_absent: bool = Field(default=False, description="Write only when the key is absent.")


class KvDelete(Fields):
    """Names one value to delete."""

    namespace: Namespace
    key: Key


class SecretPut(KvPut):
    """One write of a secret."""

    namespace: SecretNamespace


class SecretDelete(KvDelete):
    """Names one secret to delete."""

    namespace: SecretNamespace


class KvKeysGet(Fields):
    """Names a namespace to list."""

    namespace: Namespace = Field(default="", description="Namespace; the job's variables and secrets when left out.")


class Nothing(Fields):
    """A request without fields."""


class SemaphoreAcquire(Fields):
    """Asks for a slot."""

    name: SemaphoreName
    capacity: int = Field(default=1, ge=1, le=64, description="Slots of the semaphore, fixed while anyone is in it.")
    timeout_seconds: int = Field(default=600, ge=1, le=3600, description="How long to wait for the slot.")


class SemaphoreNamed(Fields):
    """Names a semaphore."""

    name: SemaphoreName


class SshCommand(Fields):
    """One command for a worker."""

    worker: str = Field(min_length=1, description="Worker of the hook's job, as in workers.json.", examples=["10.0.0.1"])
    command: str = Field(min_length=1, description="Shell command line.", examples=["systemctl is-active api"])
    timeout_seconds: int = Field(default=300, ge=1, le=3600, description="The remote process tree is ended after it.")
    stdin: str = Field(default="", description="What the command reads; end of file at once when empty.")
    check_host: bool = Field(default=False, description="Refuse a worker whose worker.json names another bucket or worker.")


class Tls(Fields):
    """How HTTPS is spoken."""

    client_certificate: str = Field(default="", description="Name of a certificate of the allocation to present.")
    server_name: str = Field(default="", description="Name to verify instead of the address.")
    insecure_skip_verify: bool = Field(default=False, description="Accept any certificate.")


class HttpCall(Fields):
    """One HTTP request to a worker of the hook's job."""

    method: str = Field(
        pattern=r"^[A-Za-z]{1,16}$",
        description="HTTP method; any but CONNECT, which asks for a tunnel.",
        examples=["GET"],
    )
    url: str = Field(min_length=1, max_length=8192, description="URL whose host is the address of a worker of the hook's job.")
    headers: dict[str, str] = Field(default_factory=dict, description="Request headers.")
    body: str = Field(default="", description="Request body.")
    timeout_seconds: int = Field(default=30, ge=1, le=120, description="Seconds for everything together.")
    tls: Tls | None = Field(default=None, description="TLS manners; trusts the bucket CA when left out.")

    @field_validator("method")
    @classmethod
    def is_no_tunnel(cls, method: str) -> str:
        """Refuse CONNECT: what follows its answer is no HTTP any more."""
        if method.upper() == "CONNECT":
            raise PydanticCustomError("tunnel", "asks for a tunnel, which a hook cannot use")
        return method


class KvValue(Answer):
    """One value."""

    namespace: str
    key: str
    value: str = Field(description="The text; secrets decrypted.")
    version: int


class KvVersion(Answer):
    """The version now in force."""

    version: int


class KvKeys(Answer):
    """Keys by namespace."""

    namespaces: dict[str, list[str]] = Field(description="Sorted keys; a namespace that holds nothing has none.")


class Demand(Answer):
    """One hook that demands this one."""

    job: str
    hook: str
    demand_config: dict[str, Any] = Field(description="`demands.config` of the demanding hook.")


class SemaphoreGrant(Answer):
    """A slot."""

    name: str
    allocation_id: str
    capacity: int
    acquired: bool = True
    fencing_token: int = Field(description="Larger than that of every earlier grant of this semaphore.")


class Empty(Answer):
    """Nothing but success."""


class SemaphoreState(Answer):
    """Who is in a semaphore."""

    name: str
    capacity: int
    holders: list[str] = Field(description="Allocation ids.")
    waiting: int = Field(description="How many wait.")
    available: int = Field(description="Free slots.")


class SshResult(Answer):
    """How a command ended."""

    exit_code: int = Field(description="128 + n for signal n; 124 when timed out.")
    stdout: str
    stderr: str
    timed_out: bool
    truncated: bool = Field(description="Whether either output was cut at 4 MiB.")
    duration_ms: int


class HttpResult(Answer):
    """The answer of a worker."""

    status_code: int
    headers: dict[str, str] = Field(description="Names in lower case; repeated headers are joined with a comma.")
    body: str = Field(description="Bytes that are not UTF-8 are replaced.")
    truncated: bool


class Health(Answer):
    """Whether the hook API can work."""

    status: str = Field(description="`ok` or `degraded`.", examples=["ok"])
    catalog: str = Field(description="`reachable` or `unreachable`.", examples=["reachable"])
    version: str = Field(description="Version of maand.")


class ErrorInfo(Answer):
    """What went wrong."""

    code: str = Field(description="Stable machine word.", examples=["permission_denied"])
    message: str = Field(description="One sentence with the remedy.")
    details: dict[str, Any] = Field(description="Facts to act upon, for example `current_version`.")


class ErrorBody(Answer):
    """Body of every failed request."""

    error: ErrorInfo
