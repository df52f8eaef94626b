"""The OpenAPI description is true: schemathesis asks what it allows, and what it does not."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import openapi

from mufin.serving.web.app import create_app
from mufin.serving.web.engine import Engine
from mufin.serving.web.limits import Settings
from mufin.serving.web.metrics import Metrics
from mufin.serving.web.swap import Swaps
from tests.support.fake_service import FakeKeeper, FakeModels, FakeService
from tests.support.web import running


@pytest.fixture(scope="module")
def served():
    with running() as now:
        yield now


@pytest.fixture(scope="module")
def described(served):
    return openapi.from_url(f"{served.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case):
    case.call_and_validate(headers={"X-Request-Timeout": "5"})


def test_no_input_of_the_description_was_a_server_error(served):
    with served.client() as client:
        text = client.get("/metrics").text
    assert 'status="500"' not in text and 'status="422"' in text and 'status="200"' in text


def test_bounds_and_examples_are_in_the_description(served):
    with served.client() as client:
        content = client.get("/openapi.json").json()
    question = content["components"]["schemas"]["Question"]["properties"]
    assert question["k"]["maximum"] == 1000 and question["k"]["minimum"] == 1
    assert question["uids"]["maxItems"] == 100 and question["images"]["maxItems"] == 16
    assert question["where"]["examples"]
    body = content["paths"]["/v1/recommend"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
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
