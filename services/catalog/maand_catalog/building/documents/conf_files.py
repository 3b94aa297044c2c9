"""The models of `maand.conf`, `bucket.conf` and `bucket.jobs*.conf`."""

import uuid
from typing import Annotated, Any, Literal, Self

from pydantic import Field, RootModel, WithJsonSchema, model_validator

from maand_catalog.building.documents.fields import LARGEST_COUNT, Cpu, Memory, when_text
from maand_catalog.building.documents.validation import FileModel, rule_error, validated_by
from maand_catalog.rules.workspace import names
from maand_catalog.rules.workspace.bucket_facts import BucketConfig, PortPool
from maand_catalog.rules.workspace.problems import Rejected


def checked_bucket_id(written: str) -> str:
    """Accept a UUID in its usual spelling."""
    try:
        return str(uuid.UUID(written))
    except ValueError as error:
        raise Rejected(
            "bad_bucket_id", f'"{written[:60]}" is not a UUID', help="`maand init` writes it; restore it from a backup"
        ) from error


def checked_key_name(written: str) -> str:
    """Accept the name of a file inside `secrets/`, or nothing: the SSH agent's keys."""
    if "/" not in written and written not in (".", "..") and written.isprintable() and len(written) <= 200:
        return written
    raise Rejected(
        "bad_file_name",
        f'"{written[:60]}" is not the name of a file in secrets/',
        help='for example "worker.key"; "" for the keys of the SSH agent',
    )


def checked_selector(written: str) -> str:
    """Accept the middle part of `bucket.jobs.<selector>.conf`."""
    if all(letter.isalnum() or letter in "_-." for letter in written) and len(written) <= 100:
        return written
    raise Rejected(
        "bad_selector", f'"{written[:60]}" cannot be part of a file name', help='use letters, digits, "_", "-" and "."'
    )


def checked_variable_name(written: str) -> str:
    """Accept the name of an environment variable."""
    if written.isascii() and written.replace("_", "a").isalnum() and not written[0].isdigit() and len(written) <= 200:
        return written
    raise Rejected("bad_variable_name", f'"{written[:60]}" is not the name of an environment variable')


def checked_worker_path(written: str) -> str:
    """Accept a path on a worker: it goes into shell commands and file lists, so no control characters."""
    if written.strip("/") and written.isprintable() and ".." not in written.split("/") and len(written) <= 1024:
        return written.rstrip("/")
    raise Rejected("bad_path", f'"{written[:60]}" cannot be the directory on a worker', help='for example "/opt/worker"')


def read_pool_end(written: Any) -> Any:
    """Accept a port number, also as a string of digits, which earlier buckets have."""
    return int(written) if isinstance(written, str) and written.isascii() and written.isdigit() and len(written) < 6 else written


Days = Annotated[int, Field(ge=1, le=36500)]
AtLeastOne = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
PortEnd = Annotated[int, validated_by(read_pool_end), Field(ge=1, le=65535), WithJsonSchema({"type": ["integer", "string"]})]


class MaandConf(FileModel):
    """The settings of a bucket."""

    bucket_id: Annotated[str, validated_by(when_text(checked_bucket_id)), WithJsonSchema({"type": "string", "format": "uuid"})]
    ssh_user: Annotated[str, validated_by(when_text(names.checked_user)), Field(min_length=1)] = "agent"
    ssh_key: Annotated[str, validated_by(when_text(checked_key_name))] = "worker.key"
    ssh_port: Annotated[int, Field(ge=1, le=65535)] = 22
    use_sudo: bool = True
    ssh_config: Annotated[str, Field(max_length=1024)] = ""
    worker_root: Annotated[str, validated_by(when_text(checked_worker_path))] = "/opt/worker"
    host_keys: Literal["strict", "accept-new"] = "strict"
    certs_ttl: Days = 60
    certs_renewal_buffer: Annotated[int, Field(ge=0, le=36500)] = 10
    job_config_selector: Annotated[str, validated_by(when_text(checked_selector))] = ""
    max_parallel_jobs: AtLeastOne = 4
    max_ssh_sessions: AtLeastOne = 2000
    ssh_starts_per_second: AtLeastOne = 200
    hook_env: Annotated[tuple[Annotated[str, validated_by(when_text(checked_variable_name))], ...], Field(strict=False)] = ()
    hook_timeout_seconds: Annotated[int, Field(ge=1, le=604_800)] = 600
    log_format: Literal["kv", "json"] = "kv"

    @model_validator(mode="after")
    def certificates_live_longer_than_the_buffer(self) -> Self:
        """Refuse settings that would reissue every certificate at every build."""
        if self.certs_renewal_buffer >= self.certs_ttl:
            message = '"certs_renewal_buffer" must be smaller than "certs_ttl"'
            raise rule_error("buffer_too_long", message, "certs_renewal_buffer")
        return self

    def to_facts(self) -> BucketConfig:
        """Return the settings as the rules know them."""
        return BucketConfig(**self.model_dump())


class BucketConf(FileModel):
    """The port pool; every other key is a variable of the bucket."""

    model_config = FileModel.model_config | {"extra": "allow"}

    port_min: PortEnd = PortPool().smallest
    port_max: PortEnd = PortPool().largest

    @model_validator(mode="after")
    def ends_are_in_order(self) -> Self:
        """Refuse a pool whose ends are swapped."""
        if self.port_min > self.port_max:
            raise rule_error("min_above_max", '"port_min" is larger than "port_max"', "port_min")
        return self

    def pool(self) -> PortPool:
        """Return the port pool as the rules know it."""
        return PortPool(smallest=self.port_min, largest=self.port_max)


class JobTable(FileModel):
    """What one job is given per allocation; every other key is a variable of the job."""

    model_config = FileModel.model_config | {"extra": "allow"}

    memory: Memory | None = None
    cpu: Cpu | None = None


class JobsConf(RootModel[dict[str, JobTable]]):
    """A table per job."""
