"""Comparing what came back with what a case says."""

from collections.abc import Iterator
from typing import Any

from tests.contracts.hook_api.case import Case, FunctionCase, Step
from tests.contracts.hook_api.drivers import Driver
from tests.contracts.hook_api.world import ServedApi, environment


def run_case(api: ServedApi, driver: Driver, case: Case, key: str) -> list[str]:
    """Make the calls of a case; return what differs."""
    return [
        f"{case.name}: step {number}: {what}"
        for number, step in enumerate(case.steps, 1)
        for what in run_step(api, driver, step, key)
    ]


def run_step(api: ServedApi, driver: Driver, step: Step, key: str) -> Iterator[str]:
    """Make one call; yield what differs."""
    request = {"method": step.method, "path": step.path, "fields": filled(dict(step.fields), key)}
    answer = driver.call(environment(api, step.caller), request)
    if answer.get("status") != step.status:
        yield f"{step.method} {step.path} answered {str(answer)[:300]}, not {step.status}"
        return
    body = answer["json"] if step.status == 200 else answer["json"]["error"]
    if step.status != 200 and set(body) != {"code", "message", "details"}:
        yield f"an error has code, message and details, not {sorted(body)}"
    if step.code is not None and body["code"] != step.code:
        yield f"the code is {body['code']}, not {step.code}"
    yield from differences(filled(step.body, key), body)


def run_function(api: ServedApi, driver: Driver, case: FunctionCase, key: str) -> list[str]:
    """Call one SDK function; return what differs."""
    request = {"function": case.function, "args": filled(list(case.args), key), "options": dict(case.options)}
    answer = driver.call(environment(api, case.caller), request)
    return [f"{case.name}: {what}" for what in differences(filled(dict(case.gives), key), answer)]


def differences(expected: Any, found: Any, where: str = "answer") -> Iterator[str]:
    """Yield where `found` lacks what is expected: dicts by key, messages by part, anything else by equality."""
    if expected is None:
        return
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            if name not in found:
                yield f"{where} has no {name}: {str(found)[:300]}"
            elif value is None:
                if found[name] is not None:
                    yield f"{where}.{name} is {found[name]!r}, not null"
            else:
                yield from differences(value, found[name], f"{where}.{name}")
    elif where.endswith(".message") and isinstance(found, str):
        if str(expected) not in found:
            yield f"{where} is {found!r} without {expected!r}"
    elif expected != found:
        yield f"{where} is {str(found)[:300]!r}, not {str(expected)[:300]!r}"


def filled(value: Any, key: str) -> Any:
    """Put the case's own key in the place of `{k}`."""
    if isinstance(value, str):
        return value.replace("{k}", key)
    if isinstance(value, dict):
        return {filled(name, key): filled(part, key) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, key) for part in value]
    return value
