"""One table, three languages, two implementations: they answer the same."""

from maand_runtime_gateway.routes.table import ROUTES
from tests.contracts.hook_api.cases import CASES
from tests.contracts.hook_api.checks import run_case, run_function
from tests.contracts.hook_api.drivers import Driver, RawHttp
from tests.contracts.hook_api.field_cases import FIELDS_OF
from tests.contracts.hook_api.function_cases import FUNCTION_CASES, WORKER_FUNCTION_CASES
from tests.contracts.hook_api.route_cases import WORKER_CASES
from tests.contracts.hook_api.world import ServedApi, environment


def test_every_case_of_the_table_holds(api: ServedApi, driver: Driver) -> None:
    wrong = [
        what
        for number, case in enumerate((*CASES, *WORKER_CASES))
        for what in run_case(api, driver, case, f"{type(driver).__name__}-{id(driver)}-{number}")
    ]

    assert wrong == []


def test_every_sdk_function_gives_what_the_table_says(api: ServedApi, sdk: Driver) -> None:
    wrong = [
        what
        for number, case in enumerate((*FUNCTION_CASES, *WORKER_FUNCTION_CASES))
        for what in run_function(api, sdk, case, f"function-{id(sdk)}-{number}")
    ]

    assert wrong == []


def test_fields_in_the_query_answer_as_fields_in_a_body_do(api: ServedApi) -> None:
    driver = RawHttp()
    path = "/kv?namespace=vars%2Fjob%2Fapi&key=greeting&version=1"

    answer = driver.call(environment(api, "api"), {"method": "GET", "path": path, "fields": {}})
    driver.close()

    assert answer == {"status": 200, "json": {"namespace": "vars/job/api", "key": "greeting", "value": "hello", "version": 1}}


def test_the_table_covers_every_route() -> None:
    assert {(route.method, route.path) for route in ROUTES} == set(FIELDS_OF)
