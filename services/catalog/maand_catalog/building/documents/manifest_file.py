"""The model of `manifest.json`; its JSON Schema is what `maand schema manifest` prints."""

import json
from dataclasses import fields
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from maand_catalog.building.documents.fields import (
    LARGEST_COUNT,
    CertificateName,
    Count,
    Country,
    Cpu,
    Event,
    HookName,
    Label,
    Memory,
    PortName,
    PortNumber,
    ProbePort,
    SubjectPart,
    VersionText,
    checked_http_path,
    when_text,
)
from maand_catalog.building.documents.validation import FileModel, NonEmpty, rule_error, validated_by
from maand_catalog.rules.workspace.manifest import Amounts, CertificateSpec, Demand, HealthCheck, HookFacts, Manifest, Probe

LONGEST_TIMEOUT_SECONDS = 7 * 24 * 3600

RENAMED = {
    "commands": '"commands" is now "hooks"',
    "deploy_parallel_count": 'use "max_concurrent_starts"',
    "update_parallel_count": 'use "max_concurrent_upgrades"',
}
"""Keys of earlier manifests and what replaced them."""


class Range(FileModel):
    """Least and most of something."""

    min: int | None = None
    max: int | None = None

    @model_validator(mode="after")
    def ends_are_in_order(self) -> Self:
        """Refuse a range whose ends are swapped."""
        if self.min is not None and self.max is not None and self.min > self.max:
            raise rule_error("min_above_max", '"min" is larger than "max"', "min")
        return self


class MemoryRange(Range):
    """Least and most memory of one allocation."""

    min: Memory | None = None
    max: Memory | None = None


class CpuRange(Range):
    """Least and most CPU of one allocation."""

    min: Cpu | None = None
    max: Cpu | None = None


class Resources(FileModel):
    """What one allocation needs, and the ports of the job."""

    memory: MemoryRange = MemoryRange()
    cpu: CpuRange = CpuRange()
    ports: dict[PortName, PortNumber] = Field(default_factory=dict)


class DemandConfig(FileModel):
    """What the demanding hook asks of the demanded one; keys besides the versions are free."""

    model_config = FileModel.model_config | {"extra": "allow"}

    min_version: VersionText | None = None
    max_version: VersionText | None = None


class Demands(FileModel):
    """The hook of another job that must have come first."""

    job: str = ""
    hook: str = ""
    config: DemandConfig | None = None

    @model_validator(mode="after")
    def names_both(self) -> Self:
        """Refuse half a demand."""
        if bool(self.job) != bool(self.hook):
            raise rule_error("half_a_demand", '"demands" names both "job" and "hook", or neither', "job" if self.job else "hook")
        return self


class HookModel(FileModel):
    """When and how one hook runs."""

    executed_on: Annotated[tuple[Event, ...], Field(strict=False), NonEmpty]
    runtime: Literal["python", "bun"] | None = None
    timeout_seconds: Annotated[int, Field(ge=1, le=LONGEST_TIMEOUT_SECONDS)] | None = None
    scope: Literal["allocation", "rollout"] = "allocation"
    demands: Demands | None = None

    @model_validator(mode="after")
    def events_differ(self) -> Self:
        """Refuse an event that is named twice."""
        for index, event in enumerate(self.executed_on):
            if event in self.executed_on[:index]:
                raise rule_error("repeated_event", f'"executed_on" names "{event}" twice', "executed_on", index)
        return self


class TcpCheck(FileModel):
    """A TCP connection succeeds."""

    type: Literal["tcp"]
    port: ProbePort


class HttpCheck(FileModel):
    """An HTTP request answers with the expected status."""

    type: Literal["http"]
    port: ProbePort
    path: Annotated[str, validated_by(when_text(checked_http_path))] = "/"
    expect_status: Annotated[int, Field(ge=100, le=599)] = 200
    scheme: Literal["http", "https"] = "http"


class SshCheck(FileModel):
    """A command on the worker exits 0."""

    type: Literal["ssh"]
    command: Annotated[str, Field(min_length=1, max_length=65536)]


class Wait(FileModel):
    """How long to wait for health."""

    attempts: Annotated[int, Field(ge=1, le=100_000)] = 30
    interval_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 1.0


class HealthSection(FileModel):
    """Probes of each active allocation."""

    checks: Annotated[
        tuple[Annotated[TcpCheck | HttpCheck | SshCheck, Field(discriminator="type")], ...], Field(strict=False)
    ] = ()
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    wait: Wait = Wait()


class Subject(FileModel):
    """Subject of a certificate."""

    common_name: SubjectPart | None = None
    organization: SubjectPart | None = None
    organizational_unit: SubjectPart | None = None
    country: Country | None = None
    state: SubjectPart | None = None
    locality: SubjectPart | None = None


class CertificateModel(FileModel):
    """A certificate for the job's allocations: one each, or one that they share."""

    pkcs8: bool = False
    one: bool = False
    subject: Subject = Subject()


class ManifestFile(FileModel):
    """How one job is placed, started, updated, checked and hooked into."""

    version: VersionText | None = None
    selectors: Annotated[tuple[Label, ...], Field(strict=False), NonEmpty] | None = None
    max_concurrent_starts: Count = 0
    max_concurrent_upgrades: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] = 1
    max_concurrent_stops: Count = 0
    min_allocations_count: Count = 0
    restart_policy: Literal["always", "reload", "never"] = "always"
    restart_globs: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...], Field(strict=False)] = ()
    resources: Resources = Resources()
    hooks: dict[HookName, HookModel] = Field(default_factory=dict)
    health_check: HealthSection | None = None
    certs: dict[CertificateName, CertificateModel] = Field(default_factory=dict)

    @model_validator(mode="after")
    def globs_need_reload(self) -> Self:
        """Refuse globs that no policy would look at."""
        if self.restart_globs and self.restart_policy != "reload":
            message = '"restart_globs" counts only with "restart_policy": "reload"'
            raise rule_error("globs_without_reload", message, "restart_globs")
        return self

    def to_facts(self) -> Manifest:
        """Return the manifest as the rules know it: most keys as they are written, some in another form."""
        return Manifest(
            **{name: getattr(self, name) for name in TAKEN_AS_WRITTEN},
            selectors=tuple(sorted(set(self.selectors))) if self.selectors is not None else None,
            memory=Amounts(smallest=self.resources.memory.min, largest=self.resources.memory.max),
            cpu=Amounts(smallest=self.resources.cpu.min, largest=self.resources.cpu.max),
            ports=tuple(sorted(self.resources.ports.items())),
            hooks=tuple(hook_facts(name, hook) for name, hook in sorted(self.hooks.items())),
            health_check=health_facts(self.health_check) if self.health_check else None,
            certificates=tuple(certificate_facts(name, each) for name, each in sorted(self.certs.items())),
        )


TAKEN_AS_WRITTEN = {part.name for part in fields(Manifest)} & ManifestFile.model_fields.keys() - {
    "selectors",
    "hooks",
    "health_check",
}
"""Keys that the rules know under the same name and in the same form."""


def hook_facts(name: str, hook: HookModel) -> HookFacts:
    """Return one hook's facts."""
    return HookFacts(
        name=name,
        executed_on=hook.executed_on,
        runtime=hook.runtime,
        timeout_seconds=hook.timeout_seconds or 0,
        scope=hook.scope,
        demand=demand_facts(hook.demands) if hook.demands else None,
    )


def demand_facts(demands: Demands) -> Demand:
    """Return one demand's facts; the configuration travels as the JSON that was written."""
    config = demands.config
    return Demand(
        job=demands.job,
        hook=demands.hook,
        min_version=config.min_version if config else None,
        max_version=config.max_version if config else None,
        config_json=json.dumps(config.model_dump(exclude_unset=True), sort_keys=True) if config else "",
    )


def health_facts(section: HealthSection) -> HealthCheck:
    """Return the health section's facts."""
    return HealthCheck(
        probes=tuple(
            Probe(kind=check.type, **check.model_dump(exclude={"type"}, exclude_unset=True)) for check in section.checks
        ),
        timeout_seconds=section.timeout_seconds,
        wait_attempts=section.wait.attempts,
        wait_interval_seconds=section.wait.interval_seconds,
    )


def certificate_facts(name: str, certificate: CertificateModel) -> CertificateSpec:
    """Return one certificate's facts."""
    subject = certificate.subject.model_dump(exclude_none=True)
    return CertificateSpec(name=name, pkcs8=certificate.pkcs8, one=certificate.one, subject=tuple(sorted(subject.items())))
