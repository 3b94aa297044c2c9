"""The whole conformance table."""

from tests.contracts.hook_api.case import Case
from tests.contracts.hook_api.field_cases import NAME_CASES, token_cases, wrong_field_cases
from tests.contracts.hook_api.policy_cases import policy_cases
from tests.contracts.hook_api.route_cases import ROUTE_CASES
from tests.contracts.hook_api.world import CALLERS, DEAD, NOBODY, STRANGER

CASES: tuple[Case, ...] = (*ROUTE_CASES, *wrong_field_cases(), *NAME_CASES, *policy_cases(), *token_cases())
"""Cases that need the catalog only."""

assert {step.caller for case in CASES for step in case.steps} <= {*CALLERS, DEAD, STRANGER, NOBODY}
