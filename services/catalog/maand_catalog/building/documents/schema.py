"""JSON Schema of the user files, printed from the models that validate them."""

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from maand_catalog.building.documents.conf_files import BucketConf, JobsConf, MaandConf
from maand_catalog.building.documents.manifest_file import ManifestFile
from maand_catalog.building.documents.workers_file import DisabledFile, WorkersFile
from maand_catalog.errors import NotFound
from maand_catalog.rules.workspace.problems import did_you_mean

MODEL_BY_KIND: dict[str, type[BaseModel]] = {
    "manifest": ManifestFile,
    "workers": WorkersFile,
    "disabled": DisabledFile,
    "maand.conf": MaandConf,
    "bucket.conf": BucketConf,
    "bucket.jobs.conf": JobsConf,
}


def json_schema(kind: str) -> str:
    """Return the schema (draft 2020-12) of a kind of file, or raise `NotFound` naming the nearest kind."""
    if kind not in MODEL_BY_KIND:
        kinds = ", ".join(MODEL_BY_KIND)
        raise NotFound(f'there is no schema "{kind}"', help=did_you_mean(kind, MODEL_BY_KIND) or f"choose one of {kinds}")
    schema: dict[str, Any] = {"$schema": GenerateJsonSchema.schema_dialect, "$id": f"maand:{kind}"}
    schema |= MODEL_BY_KIND[kind].model_json_schema()
    return json.dumps(schema, indent=2)
