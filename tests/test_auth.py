"""Tokens and their roles: which are taken, and that no route of a real service forgets to ask."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest

from imgcls import Client
from imgcls.auth import SHORTEST, Token, Tokens, given_tokens, own_token
from imgcls.errors import BadArgument, Forbidden, ImgclsError, Unauthorized
from imgcls.guard import BESIDE, needed_roles
from imgcls.http import roles
from imgcls.openapi import document
from imgcls.service import ImageClassifier
from imgcls.settings import Settings, get_settings
from tests.conftest import ROOT, Server, start_server
from tests.fakes import jpeg, tiny_model

PREDICT = "predict-" + "p" * 24
MANAGE = "manage-" + "m" * 24
UNKNOWN = "unknown-" + "u" * 24
ROUTES = sorted(roles(ImageClassifier))
"""The service's real routes, so that a new one is asked too."""
MANAGED = [route for route, role in sorted(roles(ImageClassifier).items()) if role == "manage"]


# What the settings may say.


def tokens_from(monkeypatch: pytest.MonkeyPatch, **settings: object) -> list[Token]:
    for name, value in settings.items():
        monkeypatch.setenv(f"IMGCLS_{name.upper()}", str(value))
    get_settings.cache_clear()
    return given_tokens()


def test_without_settings_there_are_no_tokens() -> None:
    assert given_tokens() == []
    assert own_token() is None


def test_tokens_come_from_the_environment_and_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# the website\npredict:{PREDICT}  # until May\n\n")
    tokens = tokens_from(monkeypatch, tokens=f" manage:{MANAGE}, ", tokens_file=file)
    assert tokens == [("manage", MANAGE), ("predict", PREDICT)]
    assert own_token() == MANAGE


@pytest.mark.parametrize(
    "given",
    [
        "",
        " , ",
        MANAGE,
        f"admin:{MANAGE}",
        f"manage: {MANAGE}",
        f"manage:{MANAGE}é",
        f"manage:{'x' * (SHORTEST - 1)}",
        f"manage:{MANAGE},predict:{MANAGE}",
    ],
)
def test_tokens_that_cannot_be_used_stop_the_process_and_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    with pytest.raises(ImgclsError) as refused:
        tokens_from(monkeypatch, tokens=given)
    assert "oken" in refused.value.message
    for secret in (MANAGE, "x" * (SHORTEST - 1)):
        assert secret not in refused.value.message


@pytest.mark.parametrize("content", [None, b"", b"# nothing yet\n", b"\xff\xfe"])
def test_a_file_without_tokens_never_opens_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ImgclsError, match="IMGCLS_TOKENS_FILE"):
        tokens_from(monkeypatch, tokens_file=file)


def test_settings_do_not_print_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens_from(monkeypatch, tokens=f"manage:{MANAGE}")
    assert MANAGE not in repr(get_settings())
    assert MANAGE not in get_settings().model_dump_json()


def test_a_token_has_its_role_wherever_it_stands() -> None:
    tokens = Tokens([Token("predict", PREDICT), Token("manage", MANAGE)])
    assert tokens.role_of(PREDICT.encode()) == "predict"
    assert tokens.role_of(MANAGE.encode()) == "manage"
    for wrong in (b"", b"\xff", UNKNOWN.encode(), PREDICT.encode()[:-1], PREDICT.encode() + b"p"):
        assert tokens.role_of(wrong) is None


def test_all_known_tokens_are_compared_whichever_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    tokens = Tokens([Token("predict", PREDICT), Token("manage", MANAGE)])
    monkeypatch.setattr("imgcls.auth.hmac.compare_digest", compare)
    for sent in (PREDICT, MANAGE, "short"):
        compared.clear()
        tokens.role_of(sent.encode())
        assert compared == [(32, 32)] * 2


@pytest.mark.parametrize("command", [["bentoml", "serve", "service:ImageClassifier"], None])
def test_a_service_with_unusable_tokens_does_not_start(
    monkeypatch: pytest.MonkeyPatch, command: list[str] | None
) -> None:
    monkeypatch.setenv("IMGCLS_TOKENS", "manage:short")
    done = subprocess.run(
        [sys.executable, "-m", *(command or ["imgcls.cli", "serve"]), "--port", "9"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "IMGCLS_TOKENS, entry 1: the token is shorter" in " ".join(done.stderr.split())


# A real service with tokens.


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(
        tmp_path_factory.mktemp("secured"), IMGCLS_TOKENS=f"predict:{PREDICT},manage:{MANAGE}"
    )
    tag = tiny_model(tmp_path_factory.mktemp("model"), server.registry)
    with Client(server.url, token=MANAGE) as client:
        client.set(tag)
    yield server
    server.stop()


@pytest.fixture
def http(secured: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=secured.url, timeout=30) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def files() -> dict[str, Any]:
    return {"images": ("a.jpg", jpeg("red"), "image/jpeg")}


def test_the_documentation_names_every_route_under_its_role() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    )
    needed = needed_roles(ImageClassifier)
    for role in ("predict", "manage"):
        named = set(re.findall(r"`(/\w+)`", rows[role]))
        assert named == {route for route, needs in needed.items() if needs == role}


def test_the_documentation_names_every_limit_with_its_default() -> None:
    text = (ROOT / "SECURITY.md").read_text().replace(",", "")
    for name, field in Settings.model_fields.items():
        if name.startswith("max_") and name != "max_batch":
            assert re.search(rf"`IMGCLS_{name.upper()}`.*\| {field.default}\b", text), name


def test_the_service_has_routes_of_both_roles() -> None:
    assert "/predict" in ROUTES
    assert "/predict" not in MANAGED
    assert {"/upload", "/fit", "/cancel", "/set", "/remove", "/remove_all"} <= set(MANAGED)


@pytest.mark.parametrize("route", [*ROUTES, "/metrics", "/nothing", "/predict/", "/%2Fpredict"])
def test_every_route_refuses_without_a_token(http: httpx.Client, route: str) -> None:
    for method in ("POST", "GET", "PUT"):
        answer = http.request(method, route)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in answer.json()["error"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {UNKNOWN}",
        "Bearer",
        f"Basic {MANAGE}",
        MANAGE,
        f"Bearer {MANAGE[:-1]}",
        f"Bearer {MANAGE},{PREDICT}",
    ],
)
def test_every_route_refuses_a_token_that_is_not_known(
    http: httpx.Client, route: str, value: str
) -> None:
    answer = http.post(route, headers={"authorization": value})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("route", [*MANAGED, "/nothing"])
def test_every_route_that_manages_refuses_a_token_that_predicts(
    http: httpx.Client, route: str
) -> None:
    answer = http.post(route, headers=bearer(PREDICT))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="manage"'
    assert "manage" in answer.json()["error"]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_takes_a_token_that_manages(http: httpx.Client, route: str) -> None:
    answer = http.post(route, headers=bearer(MANAGE) | {"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_token_that_predicts_predicts(http: httpx.Client) -> None:
    answer = http.post("/predict", files=files(), headers=bearer(PREDICT))
    assert answer.json()["predictions"][0]["label"] == "red"
    assert http.get("/metrics", headers=bearer(PREDICT)).status_code == 200
    lower_case = http.post("/list", headers={"authorization": f"bearer {PREDICT}"})
    assert lower_case.status_code == 200


def test_two_tokens_in_one_request_are_refused(http: httpx.Client) -> None:
    headers = [("authorization", f"Bearer {MANAGE}"), ("authorization", f"Bearer {PREDICT}")]
    assert http.post("/list", headers=headers).status_code == 401


def test_probes_and_the_documentation_stay_open(http: httpx.Client) -> None:
    open_routes = [route for route, role in BESIDE.items() if role is None]
    for route in [*open_routes, "/static_content/swagger-ui.css"]:
        assert http.get(route).status_code == 200, route
    assert http.get("/static_content/../set").status_code in (401, 404)


def test_a_body_is_refused_before_it_is_read(secured: Server) -> None:
    """Only the head is sent: an answer shows that nobody waited for the body."""
    head = (
        "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: 1000000000\r\nAuthorization: Bearer {UNKNOWN}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", secured.port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 401 ")


def test_the_clients_errors_are_those_of_the_server(secured: Server) -> None:
    with Client(secured.url) as client:
        assert client.ready()
        with pytest.raises(Unauthorized, match="needs a token"):
            client.list()
    with Client(secured.url, token=PREDICT) as client:
        assert client.predict(jpeg("blue")).predictions[0].label == "blue"
        with pytest.raises(Forbidden, match="role manage"):
            client.unset()


@pytest.mark.parametrize("token", [f"{MANAGE}\n", f"{MANAGE} x", f"{MANAGE}é"])
def test_the_client_refuses_what_no_header_can_carry_without_showing_it(token: str) -> None:
    with pytest.raises(BadArgument, match="token") as refused:
        Client(token=token)
    assert MANAGE not in refused.value.message


def test_the_demo_asks_a_service_with_tokens_too(
    secured: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgcls.cli.demo_steps import _ask

    tokens_from(monkeypatch, tokens=f"predict:{PREDICT}")
    card = secured.registry.get(secured.registry.active() or "")
    truth = ["red", "green", "blue"]
    assert _ask(secured.url, card, [jpeg(colour) for colour in truth], truth) == 3


def test_bentomls_own_client_sends_a_token_too(secured: Server) -> None:
    code = f"""
import bentoml
with bentoml.SyncHTTPClient({secured.url!r}, token={PREDICT!r}) as client:
    print(client.list()["active"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == secured.registry.active(), done.stderr


def test_the_document_says_which_role_an_operation_needs(http: httpx.Client) -> None:
    spec = http.get("/docs.json").json()
    scheme = spec["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for route, role in roles(ImageClassifier).items():
        operation = spec["paths"][route]["post"]
        assert operation["security"] == [{"token": [role]}]
        assert {"401", "403"} <= set(operation["responses"])
    assert spec["paths"]["/metrics"]["get"]["security"] == [{"token": ["predict"]}]
    assert "security" not in spec["paths"]["/livez"]["get"]
    assert "securitySchemes" not in document(ImageClassifier, "0")["components"]


def test_made_up_paths_leave_nothing_behind_in_the_metrics(http: httpx.Client) -> None:
    for headers in ({}, bearer(MANAGE)):
        assert http.post("/made-up", headers=headers).status_code in (401, 404)
        http.post("/list", headers=headers)
    metrics = http.get("/metrics", headers=bearer(PREDICT)).text
    assert "made-up" not in metrics
    for code in (200, 401):
        assert f'endpoint="/list",http_response_code="{code}"' in metrics


def test_a_refusal_has_an_id(http: httpx.Client) -> None:
    assert http.post("/list", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"


def test_the_log_shows_no_token(secured: Server, http: httpx.Client) -> None:
    http.post("/list", headers=bearer(UNKNOWN))
    log = secured.log.read_text()
    assert not [token for token in (PREDICT, MANAGE, UNKNOWN) if token in log]


# What every answer has, and a service without tokens.


def test_every_answer_says_that_its_type_is_not_to_be_guessed(http: httpx.Client) -> None:
    for route in ("/", "/livez", "/docs.json", "/metrics", "/nothing"):
        for headers in ({}, bearer(MANAGE)):
            answer = http.get(route, headers=headers)
            assert answer.headers["x-content-type-options"] == "nosniff", route
    answer = http.post("/predict", files=files(), headers=bearer(PREDICT))
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


def test_the_page_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    policy = http.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy


CROSS_SITE = {"sec-fetch-site": "cross-site"}


def test_pages_of_other_sites_cannot_use_a_service_without_tokens(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as http:
        for route in ROUTES:
            answer = http.post(route, headers=CROSS_SITE)
            assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
        assert http.get("/", headers=CROSS_SITE).status_code == 200  # a link to the page
        own_page = http.post("/list", headers={"sec-fetch-site": "same-origin"})
        assert own_page.status_code == 200


def test_another_sites_page_may_send_a_token(http: httpx.Client) -> None:
    assert http.post("/list", headers=CROSS_SITE | bearer(PREDICT)).status_code == 200


def test_cors_of_bentoml_lets_other_sites_in(tmp_path: Path) -> None:
    cors = {"enabled": True, "access_control_allow_origins": ["https://a.example"]}
    server = start_server(
        tmp_path,
        BENTOML_CONFIG_OVERRIDES=json.dumps({"services": {"imgcls": {"http": {"cors": cors}}}}),
        IMGCLS_TOKENS=f"predict:{PREDICT}",
    )
    origin = {"origin": "https://a.example"}
    asking = {"access-control-request-method": "GET"}  # what is allowed by default
    try:
        with httpx.Client(base_url=server.url, headers=origin | CROSS_SITE) as http:
            preflight = http.options("/list", headers=asking)
            answer = http.post("/list", headers=bearer(PREDICT))
            assert http.post("/list").status_code == 401
    finally:
        server.stop()
    for response in (preflight, answer):
        assert response.status_code == 200, response.text
        assert response.headers["access-control-allow-origin"] == "https://a.example"


def test_a_public_address_without_tokens_is_warned_of_once(tmp_path: Path) -> None:
    public = start_server(tmp_path / "public", host="0.0.0.0", workers=2)
    deadline = time.monotonic() + 20
    # The server is ready with its first worker, which need not be the one that warns.
    while "there are no tokens" not in public.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    public.stop()
    log = public.log.read_text()
    assert log.count("there are no tokens") == 1
    assert f"0.0.0.0:{public.port}" in log


def test_no_warning_where_nobody_else_can_call_or_tokens_are_set(
    server: Server, tmp_path: Path
) -> None:
    public = start_server(tmp_path / "p", host="0.0.0.0", IMGCLS_TOKENS=f"manage:{MANAGE}")
    public.stop()
    for log in (public.log, server.log):
        assert "there are no tokens" not in log.read_text()


def test_an_api_declared_without_a_role_does_not_load() -> None:
    from imgcls.http import endpoint
    from imgcls.requests import Nothing
    from imgcls.schemas import ListResponse

    with pytest.raises(TypeError, match="role"):
        endpoint("/new", Nothing, ListResponse)  # type: ignore[call-arg]

    class Forgetful:
        @bentoml.api(route="/new")
        def new(self) -> str:
            return ""

    with pytest.raises(AttributeError, match="role"):
        roles(bentoml.service(Forgetful))
