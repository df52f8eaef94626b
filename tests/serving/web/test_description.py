"""The OpenAPI description is true: schemathesis asks what it allows, and what it does not."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, openapi
from schemathesis.specs.openapi.checks import positive_data_acceptance

from mufin.serving.web.app import create_app
from mufin.serving.web.description import EXAMPLES
from mufin.serving.web.engine import Engine
from mufin.serving.web.limits import Settings
from mufin.serving.web.metrics import Metrics
from mufin.serving.web.schemas import validated
from mufin.serving.web.swap import Swaps
from tests.support.fake_service import FakeKeeper, FakeModels, FakeService
from tests.support.web import running

ROUTES = [
    "POST /v1/recommend",
    "POST /v1/recommend/batch",
    "POST /v1/products/batch",
    "GET /v1/products",
    "GET /v1/products/{uid}",
    "PUT /v1/products/{uid}",
    "DELETE /v1/products/{uid}",
    "GET /v1/pictures/{key}",
    "GET /v1/model",
    "POST /v1/model",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
]

WITHOUT_INPUT = {"GET /v1/model", "GET /healthz", "GET /readyz", "GET /metrics"}
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
TRIED = [(name, POSITIVE) for name in ROUTES]
TRIED += [(name, NEGATIVE) for name in ROUTES if name not in WITHOUT_INPUT]


@pytest.fixture(scope="module")
def served():
    with running() as now:
        yield now


@pytest.fixture(scope="module")
def operations(served):
    """(name, operation) of each route that is described."""
    described = openapi.from_url(f"{served.url}/openapi.json")
    found = [result.ok() for result in described.get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


@pytest.mark.parametrize("name, mode", TRIED)
def test_answers_are_as_described(operations, name, mode):
    """Also that what is not described is refused.

    Not that all that is described is accepted: which ids and columns exist, and what is a picture,
    is not in the description.
    """

    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operations[name].as_strategy(generation_mode=mode))
    def each(case):
        case.call_and_validate(
            headers={"X-Request-Timeout": "5"}, excluded_checks=[positive_data_acceptance]
        )

    each()


def test_all_routes_are_tried(operations):
    assert set(operations) == set(ROUTES)


def test_no_input_of_the_description_was_a_server_error(served):
    with served.client() as client:
        text = client.get("/metrics").text
    assert 'status="5' not in text and 'status="422"' in text and 'status="200"' in text


def test_bounds_and_examples_are_in_the_description(served):
    with served.client() as client:
        content = client.get("/openapi.json").json()
    question = content["components"]["schemas"]["Question"]["properties"]
    assert question["k"]["maximum"] == 1000 and question["k"]["minimum"] == 1
    assert question["uids"]["maxItems"] == 100 and question["images"]["maxItems"] == 16
    assert question["where"]["examples"]
    body = content["paths"]["/v1/recommend"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    for model, example in EXAMPLES.items():
        validated(model, example)
    assert "security" not in content
    for path in content["paths"].values():
        for operation in path.values():
            assert operation.get("description"), operation


def test_the_description_names_the_key_where_there_is_one():
    config, models = Settings(key="s3cret"), FakeModels(FakeService())
    engine = Engine(config, FakeKeeper(), Metrics())
    content = create_app(engine, Swaps(engine, FakeKeeper(), models.load), config).openapi()
    assert content["security"] == [{"key": []}]
    assert content["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
