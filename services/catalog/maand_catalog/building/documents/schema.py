"""JSON Schema of the user files, printed from the models that validate them."""

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from maand_catalog.building.documents.conf_files import BucketConf, JobsConf, MaandConf
from maand_catalog.building.documents.manifest_file import ManifestFile
from maand_catalog.building.documents.workers_file import DisabledFile, WorkersFile

MODEL_BY_KIND: dict[str, type[BaseModel]] = {
    "manifest": ManifestFile,
    "workers": WorkersFile,
    "disabled": DisabledFile,
    "maand.conf": MaandConf,
    "bucket.conf": BucketConf,
    "bucket.jobs.conf": JobsConf,
}


def json_schema(kind: str) -> str:
    """Return the schema (draft 2020-12) of a kind of file."""
    schema: dict[str, Any] = {"$schema": GenerateJsonSchema.schema_dialect, "$id": f"maand:{kind}"}
    schema |= MODEL_BY_KIND[kind].model_json_schema()
    return json.dumps(schema, indent=2)
