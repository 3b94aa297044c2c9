"""BucketService: buckets and their settings, and the schemas of user files."""

from typing import Any

from maand_catalog.building.documents.compiler import compile_config
from maand_catalog.building.documents.schema import json_schema
from maand_catalog.database.database import Database, Transaction
from maand_catalog.errors import InvalidConfig
from maand_catalog.rpc.callers import require_role
from maand_catalog.rpc.requests import asked_page, checked_id, checked_word
from maand_catalog.rpc.run_messages import to_timestamp
from maand_catalog.rules.identity import Role
from maand_catalog.rules.workspace.bucket_facts import BucketConfig
from maand_catalog.rules.workspace.problems import fit_in_trailer
from maand_catalog.store.fleet.buckets import StoredBucket, apply_config, get_bucket, list_buckets
from maand_contracts.catalog.v1 import bucket_pb2 as pb
from maand_contracts.catalog.v1.bucket_pb2_grpc import BucketServiceServicer
from maand_wire.conversions import message_writer

HOST_KEYS = {"strict": pb.HOST_KEY_POLICY_STRICT, "accept-new": pb.HOST_KEY_POLICY_ACCEPT_NEW}


class BucketServicer(BucketServiceServicer):
    """Knows the buckets. Reading needs a viewer, settings an operator."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ApplyBucketConfig(self, request: pb.ApplyBucketConfigRequest, context: Any) -> pb.ApplyBucketConfigResponse:
        """Validate `maand.conf` and make it the bucket's settings."""
        require_role(context, Role.OPERATOR)
        bucket_id = checked_id(request.bucket_id, "bucket_id")
        found = compile_config(request.maand_conf, bucket_id)
        if isinstance(found, tuple):
            raise InvalidConfig("maand.conf is wrong", problems=fit_in_trailer(found))
        bucket = await self._database.write(lambda tx: apply_config(tx, bucket_id, request.maand_conf))
        return pb.ApplyBucketConfigResponse(bucket=bucket_message(bucket))

    async def GetBucket(self, request: pb.GetBucketRequest, context: Any) -> pb.GetBucketResponse:
        """Return one bucket."""
        require_role(context, Role.VIEWER)
        bucket = await self._database.read(lambda tx: get_bucket(tx, request.bucket_id))
        return pb.GetBucketResponse(bucket=bucket_message(bucket))

    async def ListBuckets(self, request: pb.ListBucketsRequest, context: Any) -> pb.ListBucketsResponse:
        """List buckets, oldest first."""
        require_role(context, Role.VIEWER)
        page = asked_page(request, str, usual=100)
        after = checked_id(page.after[0], "page_token") if page.after else ""

        def intention(tx: Transaction) -> list[StoredBucket]:
            return list_buckets(tx, after=after, limit=page.limit + 1)

        found, more = page.cut(await self._database.read(intention), lambda last: (last.bucket_id,))
        return pb.ListBucketsResponse(buckets=map(bucket_message, found), next_page_token=more)

    async def GetSchema(self, request: pb.GetSchemaRequest, context: Any) -> pb.GetSchemaResponse:
        """Return the JSON Schema of one kind of user file."""
        require_role(context, Role.VIEWER)
        return pb.GetSchemaResponse(
            json_schema=json_schema(checked_word(pb.UserFileKind, request.kind, "kind").replace("_", "."))
        )


def bucket_message(bucket: StoredBucket) -> pb.Bucket:
    """Describe a bucket. Settings that an earlier catalog accepted and this one would not are left out."""
    config, build = compile_config(bucket.maand_conf, bucket.bucket_id), bucket.last_build
    return pb.Bucket(
        bucket_id=bucket.bucket_id,
        created_at=to_timestamp(bucket.created_at),
        config=config_message(config) if isinstance(config, BucketConfig) else None,
        config_sha256=bucket.config_sha256,
        built_by_run_id=build.run_id if build else "",
        built_at=to_timestamp(build.built_at) if build else None,
        workers=build.workers if build else 0,
        jobs=build.jobs if build else 0,
        active_allocations=build.active_allocations if build else 0,
        built_snapshot_id=build.snapshot_id if build else "",
        owner_id=bucket.owner_id,
    )


config_message = message_writer(
    pb.BucketConfig,
    BucketConfig,
    certs_ttl_days=lambda config: config.certs_ttl,
    certs_renewal_buffer_days=lambda config: config.certs_renewal_buffer,
)
