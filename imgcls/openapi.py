"""The OpenAPI document: BentoML's, with whole types and imgcls's own refusals written in.

BentoML keeps only the first of alternative types, describes errors that imgcls does not send, and
says version 3.0.2, whose schemas know neither `null` as a type nor a number as `exclusiveMinimum`.
"""

from http import HTTPStatus
from typing import Any

from imgcls.auth import Role
from imgcls.errors import BY_CODE
from imgcls.guard import needed_roles
from imgcls.http import FileAnswer
from imgcls.schemas import ErrorResponse
from imgcls.settings import get_settings

_REF = "#/components/schemas/{model}"


def document(service: Any, version: str) -> dict[str, Any]:
    """The OpenAPI document of a BentoML service whose methods are `endpoint`s.

    Where the settings hold tokens, it says which role each operation needs.
    """
    spec: dict[str, Any] = service.openapi_spec.asdict()
    spec["openapi"] = "3.1.0"
    spec["info"] = {
        "title": "imgcls",
        "version": version,
        "description": "Image classification and regression: predictions from the active model, "
        "and everything needed to train another and to replace it.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    }
    schemas = spec["components"]["schemas"]
    _add(schemas, ErrorResponse, "validation")
    for api in service.apis.values():
        operation = spec["paths"][api.route]["post"]
        takes = operation["requestBody"]
        takes["required"] = any(
            field.is_required() for field in api.input_spec.model_fields.values()
        )
        (body,) = takes["content"].values()
        body["schema"] = _add(schemas, api.input_spec, "serialization")
        # Optional form fields may be left out; BentoML's clients send them as JSON, curl as text.
        body.pop("encoding", None)
        if raw := getattr(api.input_spec, "raw_field", None):
            takes["content"]["image/*"] = {"schema": {"type": "string", "format": "binary"}}
            takes["content"]["application/json"] = {"schema": _instances(api.input_spec, raw)}
            operation["parameters"] = _query(api.input_spec, raw)
        operation["responses"] = {
            "200": {"description": "OK", "content": _answer(schemas, api.output_spec)},
            **_refusals(),
        }
    if get_settings().has_tokens:
        _secure(spec, needed_roles(service))
    return spec


def _secure(spec: dict[str, Any], needed: dict[str, Role | None]) -> None:
    spec["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of the service; the role `manage` includes `predict`.",
        }
    }
    for route, operations in spec["paths"].items():
        if role := needed.get(route, "manage"):
            for operation in operations.values():
                operation["security"] = [{"token": [role]}]


def _add(schemas: dict[str, Any], model: Any, mode: Any) -> dict[str, str]:
    """Put a type and those it uses among the components; return the reference to it."""
    schema = model.model_json_schema(ref_template=_REF, mode=mode)
    schemas.update(schema.pop("$defs", {}))
    name = model.__name__.removesuffix("IODescriptor")
    schemas[name] = schema | {"title": name}
    return {"$ref": _REF.format(model=name)}


def _answer(schemas: dict[str, Any], model: Any) -> dict[str, Any]:
    if issubclass(model, FileAnswer):
        return {kind: {"schema": {"type": "string"}} for kind in model.media_types}
    return {"application/json": {"schema": _add(schemas, model, "serialization")}}


def _query(model: Any, raw: str) -> list[dict[str, Any]]:
    """The other fields of a form whose field `raw` is sent alone, as parameters of the query."""
    properties = model.model_json_schema(ref_template=_REF, mode="serialization")["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        | {"description": "Beside a body of one image; in a form it is a field."}
        for name, schema in properties.items()
        if name != raw
    ]


def _instances(model: Any, raw: str) -> dict[str, Any]:
    """The form as JSON: the files of the field `raw` are `instances`, in base64."""
    schema: dict[str, Any] = model.model_json_schema(ref_template=_REF, mode="serialization")
    properties = schema["properties"]
    del properties[raw]
    image = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"}
    properties["instances"] = {"type": "array", "items": image, "minItems": 1}
    return {
        "type": "object",
        "properties": properties,
        "required": ["instances"],
        "additionalProperties": False,
    }


def _refusals() -> dict[str, Any]:
    """An entry for every status that imgcls refuses with, naming its codes."""
    codes: dict[int, list[str]] = {}
    for code, kind in sorted(BY_CODE.items()):
        codes.setdefault(kind.status, []).append(code)
    return {
        str(status): {
            "description": HTTPStatus(status).phrase + ": " + ", ".join(names),
            "content": {
                "application/json": {
                    "schema": {"$ref": _REF.format(model="ErrorResponse")},
                    "example": {"error": "What was wrong, and what to do.", "code": names[0]},
                }
            },
        }
        for status, names in sorted(codes.items())
    }
