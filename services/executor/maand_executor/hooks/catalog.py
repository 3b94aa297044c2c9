"""What hooks need of the catalog; `CatalogClient` gives it, and a fake in the tests."""

from collections.abc import Sequence
from typing import Protocol

from maand_executor.content.store import BlobSource
from maand_executor.rules.facts import BegunInvocation, Certificates, InvocationEnd, InvocationStart, JobFile, RunIdentity


class HookCatalog(BlobSource, Protocol):
    """Identity, content and certificates."""

    async def list_job_files(self, bucket_id: str, job: str) -> tuple[JobFile, ...]:
        """Return the stored files of one job."""
        ...

    async def read_certificates(self, bucket_id: str, allocation_ids: Sequence[str]) -> Certificates:
        """Return certificates with private keys, and the bucket's CA certificate."""
        ...

    async def begin_invocations(self, run: RunIdentity, starts: Sequence[InvocationStart]) -> tuple[BegunInvocation, ...]:
        """Give hook processes their identity, in the order asked."""
        ...

    async def end_invocations(self, bucket_id: str, ends: Sequence[InvocationEnd]) -> None:
        """Revoke tokens, release semaphores."""
        ...
