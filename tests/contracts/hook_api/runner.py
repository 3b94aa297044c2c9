"""Beside `maand.py`: makes the calls it reads from standard input, one JSON document a line, and writes what came back."""

import json
import os
import sys
from typing import Any

import maand  # type: ignore[import-not-found]  # it lies beside this file when it runs


def outcome(request: dict[str, Any]) -> dict[str, Any]:
    """Make one call."""
    try:
        if "function" in request:
            return described(call_function(request))
        return described(maand.call_api(request["method"], request["path"], request["fields"]))
    except KeyError:
        return {"error": "KeyError"}
    except maand.MaandError as error:
        return {"error": type(error).__name__, "status": error.status_code, "code": error.code, "message": error.message}


def call_function(request: dict[str, Any]) -> Any:
    """Call an SDK function by name; `with_semaphore` stands for the context manager."""
    if request["function"] == "with_semaphore":
        with maand.semaphore(*request["args"], **request["options"]) as slot:
            return [slot.fencing_token > 0, maand.semaphore_status(request["args"][0]).json()["available"]]
    return getattr(maand, request["function"])(*request["args"], **request["options"])


def described(result: Any) -> dict[str, Any]:
    """Describe a result in JSON, the same way in every language."""
    if isinstance(result, maand.Response):
        return {"status": result.status_code, "json": result.json()}
    if isinstance(result, maand.SSHResult):
        return {"returncode": result.returncode, "stdout": result.stdout, "ok": result.ok, "command": result.command}
    return {"value": result}


for line in sys.stdin:
    request = json.loads(line)
    os.environ.clear()
    os.environ.update(request["environment"])
    print(json.dumps(outcome(request)), flush=True)
