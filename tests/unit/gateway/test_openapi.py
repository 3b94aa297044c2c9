"""The OpenAPI document against the gateway: schemathesis sends what it allows and what it forbids, and judges the answers."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.unit.gateway.conftest import ServedGateway

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "unsupported_method",
)
"""All but `positive_data_acceptance`: names and namespaces that the document cannot describe are judged by the catalog."""

EXAMPLES = 20
"""Requests for each operation and phase: enough to find what a change broke, quick enough for every test run."""


@pytest.mark.parametrize("caller", ["api", "dead", None])
async def test_no_request_that_the_document_allows_or_forbids_breaks_a_promise(
    gateway: ServedGateway, caller: str | None, tmp_path: Path
) -> None:
    token = ["--header", f"Authorization: Bearer {gateway.tokens[caller]}"] if caller else []
    command = (Path(sys.executable).with_name("schemathesis"), "run", f"http://{gateway.address}/openapi.json")
    options = (
        "--checks",
        ",".join(CHECKS),
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        str(EXAMPLES),
        "--seed",
        "7",
    )

    process = await asyncio.create_subprocess_exec(
        *command, *options, *token, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
