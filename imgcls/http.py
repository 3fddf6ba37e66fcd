"""Between BentoML and plain methods: bodies read within limits, answers and refusals as JSON.

BentoML gives a route's types, the OpenAPI document and the clients. What is done here instead of by
BentoML: files are never fetched from URLs, bodies are bounded while they are read, bad input is
refused in imgcls's own words, and no schema is rebuilt for a response.
"""

import asyncio
import binascii
import errno
import functools
import io
import json
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import bentoml
from _bentoml_sdk import IODescriptor
from _bentoml_sdk.method import APIMethod
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from imgcls.auth import Role
from imgcls.errors import (
    DISK_FULL,
    FORBIDDEN,
    BadArgument,
    BodyStalled,
    ImgclsError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    StorageUnavailable,
    TooLarge,
    UnsupportedMediaType,
)
from imgcls.logs import Requests, note
from imgcls.metrics import get_metrics
from imgcls.settings import get_settings

logger = logging.getLogger("imgcls.service")

_MB = 1024 * 1024
_MAX_FIELDS = 32
_OF_STORAGE = DISK_FULL | FORBIDDEN | {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE}
_MAX_JSON_MB = 1
"""Reading JSON takes the event loop's time and many times its size in memory."""
_MAX_INSTANCES_MB = 8
_MAX_INSTANCES_PARTS = 10_000
"""Commas and brackets in JSON that is nearly all base64: what is long and plain is read quickly."""
_QUOTED = re.compile(r'"[^"\\\x00-\x1f]*"')

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
"""`json.dumps` would build one for each answer."""

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


class Refused(IODescriptor):  # type: ignore[misc]
    """Stands for a request that could not be read; `endpoint` turns it into the response."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    refused: Any


class JsonRequest(IODescriptor):  # type: ignore[misc]
    """Base of requests whose body is one JSON object; unknown keys are refused by name."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> IODescriptor:
        try:
            _check_type(request, "application/json", optional=True)
            body = b"".join([chunk async for chunk in _limited(request, _MAX_JSON_MB)])
            return cls.model_validate_json(body or b"{}")
        except ValidationError as err:
            return Refused(refused=_bad_argument(err))
        except ImgclsError as err:
            return Refused(refused=err)
        except ClientDisconnect:
            return Refused(refused=BadArgument("The request ended before it was whole."))


class FormRequest(IODescriptor):  # type: ignore[misc]
    """Base of multipart requests. `file_fields` are files and come as lists of `UploadFile`.

    Fields of type `Path` in a subclass say so to BentoML's schema; they hold no paths here.
    """

    model_config = ConfigDict(extra="forbid")
    file_fields: ClassVar[frozenset[str]] = frozenset()
    raw_field: ClassVar[str | None] = None
    """The file field that may come alone, as a body of type `image/*`; the other fields then stand
    in the query. No form has to be taken apart for it. It may also come as JSON, in base64."""
    max_mb: ClassVar[str] = "max_body_mb"
    """Name of the setting that bounds the body."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> IODescriptor:
        try:
            limit = getattr(get_settings(), cls.max_mb)
            kind = request.headers.get("content-type", "").lower()
            if cls.raw_field and kind.startswith("image/"):
                form = await _read_raw(request, cls.raw_field, limit)
            elif cls.raw_field and kind.startswith("application/json"):
                form = await _read_instances(request, cls.raw_field, limit)
            else:
                _check_type(request, "multipart/form-data")
                form = await _read_form(request, limit)
            # `request.close()` is called when the response is out; that closes the files.
            request._form = form
            return cls._from_form(form)
        except OSError as err:  # what is large is kept in a temporary file
            logger.exception("The form could not be kept")
            return Refused(refused=_fault(err))
        except ValidationError as err:
            return Refused(refused=_bad_argument(err))
        except ImgclsError as err:
            return Refused(refused=err)
        except ClientDisconnect:
            return Refused(refused=BadArgument("The request ended before it was whole."))

    @classmethod
    def _from_form(cls, form: FormData) -> Self:
        files: dict[str, list[UploadFile]] = {name: [] for name in cls.file_fields}
        values: dict[str, Any] = {}
        given: set[str] = set()
        for name, value in form.multi_items():
            if name in cls.file_fields:
                if not isinstance(value, UploadFile):
                    raise BadArgument(
                        f"The form field `{name}` must be a file, sent as {name}=@FILE; it is "
                        "text. Files are never fetched from URLs."
                    )
                files[name].append(value)
            elif name not in cls.model_fields:
                known = ", ".join(f"`{field}`" for field in cls.model_fields)
                raise BadArgument(f"There is no form field `{name[:80]}`; there are: {known}.")
            elif isinstance(value, UploadFile):
                raise BadArgument(f"The form field `{name}` must be text, not a file.")
            elif name in given:
                raise BadArgument(f"The form field `{name}` was sent twice; send it once.")
            elif value not in ("", "null"):
                # BentoML's clients send form fields as JSON, people as they are.
                values[name] = json.loads(value) if _QUOTED.fullmatch(value) else value
            given.add(name)
        # Files are handed on unvalidated; all other fields are checked against their types.
        checked = cls.__pydantic_validator__.validate_python(
            values | {name: [] for name in files}, strict=False
        )
        for name, uploads in files.items():
            object.__setattr__(checked, name, uploads)
        return cast(Self, checked)


class FileAnswer(BaseModel):
    """Base of what stands for answers that are not JSON; `media_types` are what they can be."""

    media_types: ClassVar[tuple[str, ...]] = ("application/octet-stream",)


def endpoint(
    route: str, takes: type[IODescriptor], gives: type[BaseModel], *, role: Role
) -> Callable[[Method], Any]:
    """A BentoML API from an async method: errors become refusals, results JSON.

    Where `gives` is a `FileAnswer` the method returns the response itself.
    `role` is what a caller's token must have, where the service has tokens.
    """

    def decorate(method: Method) -> Any:
        @functools.wraps(method)
        async def call(self: Any, **arguments: Any) -> Response:
            try:
                if "refused" in arguments:
                    raise arguments["refused"]
                result = await method(self, **arguments)
                return result if isinstance(result, Response) else json_response(result)
            except ImgclsError as err:
                return error_response(err)
            except asyncio.CancelledError:  # a server that stops has waited for it long enough
                return error_response(
                    Overloaded("The server stops before this is done; what is a job goes on.")
                )
            except Exception as err:
                logger.exception("%s failed", route)
                return error_response(_fault(err))

        call.role = role  # type: ignore[attr-defined]
        return bentoml.api(call, route=route, input_spec=takes, output_spec=gives)

    return decorate


def _fault(err: Exception) -> ImgclsError:
    """What the client is told of an error that nobody raised on purpose."""
    if isinstance(err, OSError) and err.errno in _OF_STORAGE:
        return StorageUnavailable(
            f"The server cannot read or write its files ({err.strerror}); whoever runs it must "
            "mend that."
        )
    return ImgclsError("Something failed on the server; its log says what.")


def roles(service: Any) -> dict[str, Role]:
    """The role that each route of a service of `endpoint`s needs."""
    return {api.route: api.func.role for api in service.apis.values()}


_bound: dict[str, Callable[[Request], Awaitable[Response]]] = {}
"""By route, the endpoints of the service that this process serves."""


class Direct:
    """ASGI layer that answers endpoints without BentoML's router and what it wraps around a call.

    A seventh of the time of a small request; all other layers stay, and so do BentoML's routes.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        known = scope["type"] == "http" and scope["method"] == "POST"
        answer = _bound.get(scope["path"]) if known else None
        if answer is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            await (await answer(request))(scope, receive, send)
        finally:
            await request.close()


class Lean:
    """ASGI middleware that takes out of BentoML's stack, at start-up, what only costs time here.

    BentoML's timeout arms a timer for every request that lives on for its whole length after the
    answer, so a limit long enough for `/fit` with `wait` would keep gigabytes; the predictor has a
    deadline of its own. Tracing makes several spans a request even where nobody collects them.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            # Loaded by now; BentoML's supervisor, which loads this module too, does without.
            from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

            unwanted: tuple[type, ...] = (Lean, TimeoutMiddleware)
            traced = BentoMLContainer.tracing.exporter_type.get() is not None
            if not traced:
                unwanted += (OpenTelemetryMiddleware,)
            layer: Any = scope["app"].middleware_stack
            while hasattr(layer, "app"):
                if isinstance(layer.app, ExceptionMiddleware):
                    layer.app.add_exception_handler(HTTPException, no_such_route)
                    if not traced:  # BentoML's own way writes trace ids into the answers
                        layer.app = Direct(layer.app)
                    break
                if type(layer.app) in unwanted:
                    layer.app = layer.app.app
                else:
                    layer = layer.app
        await self.app(scope, receive, send)


def lean(service: Any) -> Any:
    """Class decorator for a BentoML service: without those layers, with an id for each request."""
    service.add_asgi_middleware(Requests)
    service.add_asgi_middleware(Lean)
    return service


def bind_endpoints(instance: Any) -> None:
    """Let `Direct` answer with the endpoints of this instance of the service."""
    for value in vars(type(instance)).values():
        if isinstance(value, APIMethod):
            _bound[value.route] = _handler(instance, value)


def _handler(instance: Any, api: Any) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        given = await api.input_spec.from_http_request(request, None)
        arguments = {name: getattr(given, name) for name in type(given).model_fields}
        response: Response = await api.func(instance, **arguments)
        return response

    return handle


def json_response(result: Any, status: int = 200) -> Response:
    body: str | bytes
    if isinstance(result, BaseModel):
        body = result.model_dump_json()
    else:
        # Input may hold lone surrogates.
        body = _ENCODER.encode(result).encode("utf-8", "backslashreplace")
    return Response(body, status, media_type="application/json")


def error_response(err: ImgclsError) -> Response:
    get_metrics().refused(err.code)
    note(code=err.code)
    response = json_response(err.to_dict(), err.status)
    if err.retry_after is not None:
        response.headers["Retry-After"] = str(err.retry_after)
    if isinstance(err, BodyStalled):
        response.headers["Connection"] = "close"
    return response


async def no_such_route(request: Request, err: Exception) -> Response:
    """Unknown routes and wrong methods, refused as everything else is."""
    assert isinstance(err, HTTPException)
    path = request.url.path[:80]
    if err.status_code == 404:
        refusal: ImgclsError = NotFound(f"There is no {path}; /docs.json describes what there is.")
    elif err.status_code == 405:
        refusal = MethodNotAllowed(f"{path} does not take {request.method}; see /docs.json.")
    else:
        return json_response({"error": err.detail, "code": "http_error"}, err.status_code)
    response = error_response(refusal)
    response.headers.update(err.headers or {})
    return response


def _check_type(request: Request, wanted: str, *, optional: bool = False) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted and not (optional and not given):
        raise UnsupportedMediaType(
            f"{request.url.path} takes {wanted}, not {given[:80] or 'a body without a type'}."
        )


async def _limited(request: Request, max_mb: int) -> AsyncGenerator[bytes, None]:
    """The body, chunk by chunk, refused as soon as it is known to be too large or stands still."""
    message = f"The body is larger than the {max_mb} MiB that are accepted."
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_mb * _MB:
        raise TooLarge(message)
    patience = get_settings().body_stall_s
    chunks = request.stream()
    received = 0
    while True:
        try:
            async with asyncio.timeout(patience):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as err:
            raise BodyStalled(f"No more of the body came within {patience:g} s.") from err
        received += len(chunk)
        if received > max_mb * _MB:
            raise TooLarge(message)
        yield chunk


async def _read_raw(request: Request, field: str, max_mb: int) -> FormData:
    """A body that is one file, as the form that would say the same."""
    body = b"".join([chunk async for chunk in _limited(request, max_mb)])
    file = UploadFile(io.BytesIO(body), size=len(body))
    return FormData([*request.query_params.multi_items(), (field, file)])


async def _read_instances(request: Request, field: str, max_mb: int) -> FormData:
    """A JSON object whose `instances` are files in base64, as the form that would say the same."""
    body = b"".join([chunk async for chunk in _limited(request, min(max_mb, _MAX_INSTANCES_MB))])
    if sum(map(body.count, (b"[", b"{", b","))) > _MAX_INSTANCES_PARTS:
        raise BadArgument("The JSON has too many parts; it is an object with a list of images.")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise BadArgument("The body is not valid JSON.") from err
    instances = told.pop("instances", None) if isinstance(told, dict) else None
    if not isinstance(instances, list):
        raise BadArgument('The JSON must be {"instances": ["<image in base64>", ...]}.')
    if len(instances) > get_settings().max_images:
        raise BadArgument(f"One request may carry {get_settings().max_images} images.")
    files = [UploadFile(io.BytesIO(data), size=len(data)) for data in map(_decoded, instances)]
    others = [(name, str(value)) for name, value in told.items() if value is not None]
    return FormData([*others, *((field, file) for file in files)])


def _decoded(instance: Any) -> bytes:
    try:
        plain = instance.replace("\n", "").replace("\r", "")
        return binascii.a2b_base64(plain, strict_mode=True)
    except (AttributeError, ValueError) as err:
        raise BadArgument("Each of the `instances` must be an image in base64.") from err


class _Form(MultiPartParser):
    """Knows whether the form had an end: of one that is cut short, the last part would be lost
    without a word."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _read_form(request: Request, max_mb: int) -> FormData:
    max_files = get_settings().max_images
    try:
        parser = _Form(
            request.headers, _limited(request, max_mb), max_files=max_files, max_fields=_MAX_FIELDS
        )
        form = await parser.parse()
    except MultiPartException as err:
        raise BadArgument(f"The form cannot be read: {err.message}") from err
    except (KeyError, UnicodeDecodeError, ValueError) as err:
        raise BadArgument("The form cannot be read: it is not valid multipart/form-data.") from err
    if not parser.ended:
        await form.close()
        raise BadArgument("The form is cut short: its last boundary is missing.")
    return form


def _bad_argument(err: ValidationError) -> BadArgument:
    faults = [
        f"`{'.'.join(map(str, fault['loc']))[:80] or 'body'}`: {fault['msg']}"
        for fault in err.errors(include_url=False, include_input=False, include_context=False)[:10]
    ]
    return BadArgument("The request is not valid: " + "; ".join(faults), detail=faults)


FileField = Path
"""How a file is written in a request's type, for BentoML's schema."""
