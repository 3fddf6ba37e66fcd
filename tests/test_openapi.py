"""The OpenAPI document and the service, held against each other by generated requests.

Schemathesis makes requests out of the document, those that it allows and those that it forbids, and
checks that each answer has a declared status, content type and schema, that what is forbidden is
refused, and that what is allowed is not called invalid.
"""

import os
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case

import imgcls
from imgcls.openapi import document
from imgcls.schemas import CARD_EXAMPLE
from imgcls.service import ImageClassifier
from tests.conftest import Server
from tests.fakes import tiny_model

EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "25"))
"""Random requests an operation, besides those that cover each rule of its schema."""
NO_FAULT = ["2xx", "404", "409", "429", "503"]
OR_BAD_CONTENT = {"expected-statuses": [*NO_FAULT, "400"]}
"""No schema says which bytes are an image or an archive, or which settings a recipe has."""
CONFIG: dict[str, Any] = {
    "generation": {"deterministic": True},
    "checks": {
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
        "positive_data_acceptance": {"expected-statuses": NO_FAULT},
    },
    "operations": [
        {
            "include-name": "POST /predict",
            "checks": {
                "positive_data_acceptance": OR_BAD_CONTENT,
                # A text field that was left empty counts as left out, as browsers send forms.
                "negative_data_rejection": {"enabled": False},
            },
        },
        {"include-name": "POST /upload", "checks": {"positive_data_acceptance": OR_BAD_CONTENT}},
        {"include-name": "POST /fit", "checks": {"positive_data_acceptance": OR_BAD_CONTENT}},
        {"include-name": "POST /search", "checks": {"positive_data_acceptance": OR_BAD_CONTENT}},
    ],
}

service_document = document(ImageClassifier, imgcls.__version__)
api = schemathesis.openapi.from_dict(service_document, config=schemathesis.Config.from_dict(CONFIG))


@pytest.fixture(scope="module")
def url(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A service with an active model, whose tag is the document's own example."""
    registry = server.registry
    registry.new_tag = lambda name: CARD_EXAMPLE  # type: ignore[method-assign]
    tag = tiny_model(tmp_path_factory.mktemp("model"), registry)
    httpx.post(f"{server.url}/set", json={"tag": tag}).raise_for_status()
    return server.url


def test_the_service_serves_this_document(url: str) -> None:
    assert httpx.get(f"{url}/docs.json").json() == service_document


@api.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
def test_the_service_keeps_to_its_document(case: Case, url: str) -> None:
    case.call_and_validate(base_url=url)
