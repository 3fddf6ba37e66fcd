"""The HTTP interface of a real `bentoml serve`, without training: answers, refusals, switching."""

import asyncio
import base64
import concurrent.futures
import contextlib
import errno
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from imgcls.card import GRAPH_FILE
from imgcls.client import Client
from imgcls.http import endpoint
from imgcls.requests import Nothing
from imgcls.schemas import ActiveResponse
from tests.conftest import Server, start_server
from tests.fakes import class_folders, jpeg, tiny_model, tiny_regression

GREENISH = (0.0, 30.0, 0.0)


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def active(server: Server, tmp_path: Path, http: httpx.Client) -> str:
    tag = tiny_model(tmp_path / "active", server.registry)
    assert http.post("/set", json={"tag": tag}).json()["active"] == tag
    return tag


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("images", (f"{n}.jpg", data, "image/jpeg")) for n, data in enumerate(contents)]


def test_it_starts_with_an_empty_store_and_says_so(tmp_path: Path) -> None:
    server = start_server(tmp_path / "empty")
    try:
        with httpx.Client(base_url=server.url) as http:
            assert http.post("/list").json() == {"active": None, "models": []}
            assert http.post("/datasets", json={}).json() == {"datasets": []}
            assert http.post("/jobs").json() == {"jobs": []}
            answer = http.post("/predict", files=files(jpeg()))
            assert (answer.status_code, answer.json()["code"]) == (409, "no_active_model")
            for path in ("/livez", "/readyz", "/metrics", "/", "/docs.json", "/schema.json"):
                assert http.get(path).status_code == 200, path
    finally:
        server.stop()


def test_predict_names_the_model_and_answers_in_order(http: httpx.Client, active: str) -> None:
    answer = http.post("/predict", files=files(*map(jpeg, ("blue", "red", "green"))))
    body = answer.json()
    assert answer.status_code == 200
    assert body["model"] == active
    assert [p["label"] for p in body["predictions"]] == ["blue", "red", "green"]
    assert all(abs(sum(p["probabilities"].values()) - 1) < 1e-4 for p in body["predictions"])


def test_one_image_may_be_the_body_itself(http: httpx.Client, active: str) -> None:
    def raw(content: bytes, query: str = "", kind: str = "image/jpeg") -> httpx.Response:
        return http.post(f"/predict{query}", content=content, headers={"content-type": kind})

    form = http.post("/predict", files={"images": jpeg("green")}, data={"top_k": "2"})
    assert form.status_code == 200
    assert raw(jpeg("green"), "?top_k=2").json() == form.json()
    assert raw(jpeg("green"), f"?model={active}").json()["model"] == active
    assert raw(jpeg("green"), kind="Image/JPEG").status_code == 200
    for query, kind in (("?top_k=x", "image/png"), ("?k=1", "image/png"), ("?images=a", "image/a")):
        assert raw(jpeg(), query, kind).json()["code"] == "bad_argument"
    assert raw(jpeg()[:300]).json()["code"] == "broken_image"
    assert raw(b"").json()["code"] == "empty_image"
    assert raw(jpeg(), kind="audio/jpeg").status_code == 415


def test_images_may_come_as_json_in_base64(http: httpx.Client, active: str) -> None:
    pictures = [jpeg("green"), b"no image", jpeg("red")]
    wrapped = [base64.encodebytes(picture).decode() for picture in pictures]
    form = http.post("/predict", files=files(*pictures), data={"top_k": "2"})
    body = {"instances": wrapped, "top_k": 2, "model": active, "threshold": None}
    assert http.post("/predict", json=body).json() == form.json()
    alone = http.post("/predict", json={"instances": wrapped[1:2]})
    assert (alone.status_code, alone.json()["code"]) == (400, "unsupported_image")


def test_a_regression_answers_with_scores_and_intervals_within_its_range(
    http: httpx.Client, server: Server, active: str, tmp_path: Path
) -> None:
    tag = tiny_regression(tmp_path / "r", server.registry)
    by_name = http.post("/predict", files=files(jpeg("grey")), data={"model": tag}).json()
    assert http.post("/set", json={"tag": tag}).json() == {"active": tag, "previous": active}
    body = http.post("/predict", files=files(*map(jpeg, ("black", "grey", "white")), b"x")).json()
    assert body["model"] == tag
    black, grey, white, broken = body["predictions"]
    assert black == {"score": 0.0, "interval": [0.0, 1.2]}
    assert white == {"score": 10.0, "interval": [8.8, 10.0]}
    assert by_name == {"model": tag, "predictions": [grey]}
    assert grey["score"] == pytest.approx(5, abs=0.1)
    assert grey["interval"] == pytest.approx([grey["score"] - 1.2, grey["score"] + 1.2])
    assert broken.keys() == {"error", "code"}
    raw = http.post("/predict", content=jpeg("grey"), headers={"content-type": "image/jpeg"})
    assert raw.json()["predictions"] == [grey]
    for option in ({"top_k": "2"}, {"threshold": "0.5"}):
        refused = http.post("/predict", files=files(jpeg()), data=option)
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_argument")
        assert "regression" in refused.json()["error"]
    row = http.post("/list", json={"name": "bright"}).json()["models"][0]
    assert (row["task"], row["labels"], row["target"]) == ("regression", [], "brightness")
    assert (row["output_range"], row["metrics"]["mae"]) == ([0, 10], 0.4)
    card = http.post("/info", json={"tag": tag}).json()
    assert card["interval"] == {"coverage": 0.9, "half_width": 1.2}
    assert http.post("/rollback").json()["active"] == active
    classified = http.post("/predict", files=files(jpeg("red"))).json()["predictions"][0]
    assert (classified["label"], "score" in classified) == ("red", False)


def test_a_model_without_an_interval_gives_the_score_alone(
    http: httpx.Client, server: Server, tmp_path: Path
) -> None:
    tag = tiny_regression(tmp_path / "r", server.registry, half_width=None)
    body = http.post("/predict", files=files(jpeg("white")), data={"model": tag}).json()
    assert body["predictions"] == [{"score": 10.0}]


def test_an_unsure_model_abstains_and_says_so(
    http: httpx.Client, server: Server, active: str, tmp_path: Path
) -> None:
    careful = tiny_model(tmp_path / "c", server.registry, "careful", abstain_below=0.9)
    pictures = files(*map(jpeg, ("red", "grey")))
    sure, unsure = http.post("/predict", files=pictures, data={"model": careful}).json()[
        "predictions"
    ]
    plain = http.post("/predict", files=pictures).json()["predictions"]
    assert (sure["label"], sure["abstained"]) == ("red", False)
    assert unsure["abstained"] is True
    assert max(unsure["probabilities"].values()) < 0.9
    assert sum(unsure["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert [p | {"abstained": a} for p, a in zip(plain, (False, True), strict=True)] == [
        sure,
        unsure,
    ]


def test_a_bad_image_costs_only_its_sender(http: httpx.Client, active: str) -> None:
    mixed = http.post("/predict", files=files(jpeg("red"), b"\xff\xd8\xff broken"))
    assert mixed.status_code == 200
    good, bad = mixed.json()["predictions"]
    assert good["label"] == "red"
    assert bad["code"] == "broken_image"
    alone = http.post("/predict", files=files(b"\xff\xd8\xff broken"))
    assert (alone.status_code, alone.json()["code"]) == (400, "broken_image")


def test_good_clients_see_no_error_while_one_sends_garbage(server: Server, active: str) -> None:
    def good(_: int) -> set[int]:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            return {http.post("/predict", files=files(jpeg())).status_code for _ in range(20)}

    def garbage() -> set[int]:
        bad = [b"", b"x" * 1000, jpeg()[:500], b"\x89PNG\r\n\x1a\n" + b"\0" * 50]
        with httpx.Client(base_url=server.url, timeout=60) as http:
            return {http.post("/predict", files=files(bad[n % 4])).status_code for n in range(60)}

    with concurrent.futures.ThreadPoolExecutor(33) as threads:
        bad = threads.submit(garbage)
        answers = set().union(*threads.map(good, range(32)))
    assert answers == {200}
    assert bad.result() == {400}


FORM = "multipart/form-data"
CUT_FORM = (
    b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'
    + jpeg()
    + b"\r\n--x\r\n"
)
"""One whole image, and the begin of another part."""
JSON = {"content-type": "application/json"}
BASE64 = base64.b64encode(jpeg("green")).decode()
ANY_FILE = {"preset": "linear-probe", "features": {"weights": "/etc/passwd"}}
NUL_FILE, LONG_FILE = ANY_FILE | {"weights": "a\0b"}, ANY_FILE | {"weights": "a" * 5000}
REFUSALS = [
    ("/predict", {"data": {"images": "http://127.0.0.1:1/x.jpg"}}, 415),
    ("/predict", {"files": [("images", (None, "http://127.0.0.1:1/x.jpg"))]}, 400),
    ("/predict", {"files": {"picture": ("a.jpg", b"x")}}, 400),
    ("/predict", {"files": [("top_k", (None, "3"))]}, 400),
    ("/predict", {"files": [*files(jpeg()), *[("top_k", (None, k)) for k in ("1", "2")]]}, 400),
    ("/predict", {"files": [*files(jpeg()), *[("top_k", (None, ""))] * 2]}, 400),
    ("/predict", {"json": {}}, 400),
    ("/predict", {"json": []}, 400),
    ("/predict", {"json": {"instances": "x"}}, 400),
    ("/predict", {"json": {"instances": []}}, 400),
    ("/predict", {"json": {"instances": [7]}}, 400),
    ("/predict", {"json": {"instances": ["no base64!"]}}, 400),
    ("/predict", {"json": {"instances": [""]}}, 400),
    ("/predict", {"json": {"instances": [BASE64], "k": 1}}, 400),
    ("/predict", {"json": {"instances": [BASE64], "top_k": [1]}}, 400),
    ("/predict", {"json": {"instances": [BASE64], "images": "x"}}, 400),
    ("/predict", {"json": {"instances": [[]] * 20_000}}, 400),
    ("/predict", {"content": b'{"instances": [' + b"[" * 5_000, "headers": JSON}, 400),
    ("/predict", {"content": b'{"instances": ["' + b"A" * 9_000_000, "headers": JSON}, 413),
    ("/predict", {"content": b"--x", "headers": {"content-type": FORM}}, 400),
    ("/predict", {"content": b"garbage", "headers": {"content-type": f"{FORM}; boundary=x"}}, 400),
    ("/predict", {"content": CUT_FORM, "headers": {"content-type": f"{FORM}; boundary=x"}}, 400),
    ("/set", {"json": {"tag": "nothing"}}, 404),
    ("/set", {"json": {"tag": "../../etc"}}, 400),
    ("/set", {"json": {"tag": 5}}, 400),
    ("/set", {"json": {"tag": "a:b", "force": True}}, 400),
    ("/set", {"json": []}, 400),
    ("/set", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
    ("/set", {"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, 400),
    ("/set", {"data": {"tag": "a"}}, 415),
    ("/info", {"json": {}}, 400),
    ("/info", {"json": {"tag": "a:*"}}, 400),
    ("/remove", {"json": {"tag": "nothing:1"}}, 404),
    ("/remove_all", {"json": {"name": "../.."}}, 400),
    ("/list", {"json": {"name": "A B"}}, 400),
    ("/job", {"json": {"id": "../jobs"}}, 404),
    ("/cancel", {"json": {"id": "nothing"}}, 404),
    ("/resume", {"json": {"id": "nothing"}}, 404),
    ("/eda", {"json": {"dataset": "nothing"}}, 404),
    ("/eda", {"json": {"dataset": "/etc"}}, 404),
    ("/dataset", {"json": {"dataset": "nothing"}}, 404),
    ("/eda_report", {"json": {"dataset": "nothing"}}, 404),
    ("/samples", {"json": {"dataset": "nothing"}}, 404),
    ("/samples", {"json": {"dataset": "x", "count": 21}}, 400),
    ("/samples", {"json": {"dataset": "x", "split": "../x"}}, 400),
    ("/findings", {"json": {"dataset": "nothing"}}, 404),
    ("/findings", {"json": {"dataset": "x", "min_confidence": 2}}, 400),
    ("/fix", {"json": {"dataset": "nothing"}}, 404),
    ("/fix", {"json": {"dataset": "nothing", "fixes": []}}, 404),
    ("/fix", {"json": {"dataset": "x", "fixes": [{"path": "a", "action": "burn"}]}}, 400),
    ("/diff", {"json": {"old": "nothing", "new": "nothing"}}, 404),
    ("/diff", {"json": {"old": "nothing"}}, 400),
    ("/remove_dataset", {"json": {"dataset": "nothing"}}, 404),
    ("/remove_dataset", {"json": {"dataset": ".."}}, 404),
    ("/fit", {"json": {"dataset": "nothing", "name": "pets"}}, 404),
    ("/fit", {"json": {"dataset": "x", "name": "../x"}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "recipe": "magic"}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "overrides": {"learning": 1}}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "time_limit": -1}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "recipe": ANY_FILE}}, 400),
    ("/job", {"json": {"id": "a" * 300}}, 404),
    ("/fit", {"json": {"dataset": "x", "name": "x", "recipe": NUL_FILE}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "recipe": LONG_FILE}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "overrides": {"a." * 3000: 1}}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "recipe": {"epochs": 3}}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "recipe": {"kind": ["cnn"]}}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "overrides": {"kind": []}}}, 400),
    ("/fit", {"json": {"dataset": "x", "name": "x", "time_limit": 1e10}}, 400),
    ("/upload", {"files": {"archive": ("../../x.zip", b"no zip")}, "data": {"name": "x"}}, 400),
    ("/upload", {"files": {"archive": ("x.zip", b"no zip")}, "data": {"name": "../x"}}, 400),
    ("/upload", {"files": {"archive": ("x.zip", b"no zip")}}, 400),
    ("/upload", {"files": {"archive": ("x.zip", b"no zip")},
                 "data": {"name": "x", "pattern": "{0.__class__}", "target": "x"}}, 400),
    ("/upload", {"files": {"archive": ("x.zip", b"no zip")},
                 "data": {"name": "x", "pattern": "{a}", "where": "__import__('os')"}}, 400),
    ("/upload", {"files": {"archive": ("x.zip", b"no zip"), "table": ("t", b"PAR1")},
                 "data": {"name": "x"}}, 400),
    ("/upload", {"files": {"archive": ("x.zip", b"no zip")},
                 "data": {"name": "x", "table": "http://localhost/t.csv"}}, 400),
]  # fmt: skip


@pytest.mark.parametrize(("path", "request_body", "status"), REFUSALS)
def test_bad_requests_are_refused_with_a_code_and_a_sentence(
    http: httpx.Client, active: str, path: str, request_body: dict[str, object], status: int
) -> None:
    answer = http.post(path, **request_body)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["code"] in answer.text
    assert len(body["error"]) > 15
    assert "Traceback" not in answer.text


def test_unknown_routes_and_wrong_methods_are_refused_alike(http: httpx.Client) -> None:
    nothing = http.get("/nothing")
    assert (nothing.status_code, nothing.json()["code"]) == (404, "not_found")
    wrong = http.get("/predict")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_nothing_is_unpickled(http: httpx.Client, active: str) -> None:
    headers = {"content-type": "application/vnd.bentoml+pickle"}
    for path in ("/predict", "/set"):
        assert http.post(path, content=b"cos\nsystem\n.", headers=headers).status_code == 415


def test_a_threshold_or_top_k_of_the_wrong_kind_is_named(http: httpx.Client, active: str) -> None:
    answer = http.post("/predict", files=files(jpeg()), data={"top_k": "many"})
    assert answer.status_code == 400
    assert "top_k" in answer.json()["error"]


def test_bodies_over_the_limit_are_refused(tmp_path: Path) -> None:
    server = start_server(tmp_path / "limits", IMGCLS_MAX_BODY_MB="1", IMGCLS_MAX_IMAGES="4")
    try:
        tag = tiny_model(tmp_path / "m", server.registry)
        with httpx.Client(base_url=server.url, timeout=30) as http:
            http.post("/set", json={"tag": tag})
            large = http.post("/predict", files=files(b"x" * 1_100_000))
            assert (large.status_code, large.json()["code"]) == (413, "too_large")

            def chunks() -> Iterator[bytes]:
                for _ in range(20):
                    yield b"x" * 100_000

            headers = {"content-type": "application/json"}
            with contextlib.suppress(httpx.WriteError):  # the server may stop reading first
                chunked = http.post("/set", content=chunks(), headers=headers)
                assert chunked.status_code == 413
            many = http.post("/predict", files=files(*[jpeg()] * 5))
            assert many.status_code == 400
            assert http.post("/predict", files=files(jpeg())).status_code == 200
    finally:
        server.stop()


def test_a_tampered_model_is_refused_and_the_old_one_goes_on(
    http: httpx.Client, server: Server, active: str, tmp_path: Path
) -> None:
    tampered = tiny_model(tmp_path / "t", server.registry)
    other = tiny_model(tmp_path / "o", server.registry, bias=GREENISH)
    graph = server.registry.folder(tampered) / GRAPH_FILE
    graph.write_bytes((server.registry.folder(other) / GRAPH_FILE).read_bytes())
    answer = http.post("/set", json={"tag": tampered})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_model")
    body = http.post("/predict", files=files(jpeg("red"))).json()
    assert (body["model"], body["predictions"][0]["label"]) == (active, "red")


def test_set_rollback_unset_and_remove(
    http: httpx.Client, server: Server, active: str, tmp_path: Path
) -> None:
    other = tiny_model(tmp_path / "o", server.registry, "other", bias=GREENISH)
    assert http.post("/set", json={"tag": "other"}).json() == {"active": other, "previous": active}
    assert http.post("/predict", files=files(jpeg("red"))).json()["model"] == other
    refused = http.post("/remove", json={"tag": other})
    assert (refused.status_code, refused.json()["code"]) == (409, "model_in_use")
    assert http.post("/rollback").json() == {"active": active, "previous": other}
    by_name = http.post("/predict", files=files(jpeg("red")), data={"model": "other"}).json()
    assert by_name["model"] == other
    removed = http.post("/remove", json={"tag": other}).json()
    assert removed["removed"] == [other]
    assert active in removed["left"]
    gone = http.post("/predict", files=files(jpeg()), data={"model": other})
    assert (gone.status_code, gone.json()["code"]) == (404, "model_not_found")
    assert http.post("/unset").json() == {"active": None, "previous": active}
    assert http.post("/predict", files=files(jpeg())).status_code == 409
    assert http.post("/rollback").json()["active"] == active


def test_baselines_are_protected_from_remove_all(
    http: httpx.Client, server: Server, active: str, tmp_path: Path
) -> None:
    base = tiny_model(tmp_path / "b", server.registry, "base", baseline=True)
    spare = tiny_model(tmp_path / "s", server.registry, "spare")
    assert http.post("/remove", json={"tag": base}).status_code == 409
    body = http.post("/remove_all", json={}).json()
    assert spare in body["removed"]
    assert {active, base} <= set(body["left"])


def test_list_and_info_show_what_a_model_is(http: httpx.Client, active: str) -> None:
    body = http.post("/list").json()
    assert body["active"] == active
    row = next(row for row in body["models"] if row["active"])
    assert row["hyperparameters"] == {"lr": 0.01, "augment": None}
    card = http.post("/info", json={"tag": active}).json()
    assert (card["tag"], card["labels"]) == (active, ["red", "green", "blue"])


def test_a_report_is_a_page_and_its_plots_are_named(
    http: httpx.Client, server: Server, active: str
) -> None:
    page = http.post("/report", json={"tag": active})
    assert page.headers["content-type"].startswith("text/html")
    assert active in page.text
    refused = http.post("/report", json={"tag": active, "plot": "confusion"})
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    folder = server.registry.folder(active) / "report"
    folder.mkdir()
    (folder / "confusion.png").write_bytes(b"a picture")
    plot = http.post("/report", json={"tag": active, "plot": "confusion"})
    assert (plot.headers["content-type"], plot.content) == ("image/png", b"a picture")
    with Client(server.url) as client:
        assert client.report(active, "confusion") == b"a picture"
    content = http.get("/docs.json").json()["paths"]["/report"]["post"]["responses"]["200"]
    assert set(content["content"]) == {"text/html", "image/png"}


def test_upload_profile_and_list_a_dataset(http: httpx.Client, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "colours", splits=("train", "test"))
    (root / "train" / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    archive = tmp_path / "colours.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for path in sorted(root.rglob("*.jpg")):
            writer.write(path, path.relative_to(root))
    sent = {"archive": ("anything.bin", archive.read_bytes())}
    answer = http.post("/upload", files=sent, data={"name": "colours"})
    assert answer.status_code == 200, answer.text
    summary = answer.json()
    assert summary["labels"] == ["blue", "green", "red"]
    assert summary["unreadable"] == 1
    again = http.post("/upload", files=sent, data={"name": "colours"}).json()
    assert again["tag"] == summary["tag"]
    tags = [row["tag"] for row in http.post("/datasets").json()["datasets"]]
    assert tags.count(summary["tag"]) == 1
    profile = http.post("/eda", json={"dataset": "colours"}).json()
    assert profile["overall"]["images"] == 72
    assert profile["splits"]["test"]["images"] == 36
    assert profile["unreadable"]["total"] == 1
    red = profile["classes"]["red"]["mean_rgb"]
    assert red[0] > red[1]


def test_upload_images_with_targets(http: httpx.Client, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "faces")
    lines = ["path,rate"]
    archive = tmp_path / "faces.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for number, path in enumerate(sorted(root.rglob("*.jpg"))):
            writer.write(path, name := f"{number}_{'mw'[number % 2]}_{number / 4}.jpg")
            lines.append(f"{name},{number}")
    sent = {"archive": ("faces.zip", archive.read_bytes())}
    form = {"name": "faces", "pattern": "{id}_{sex}_{rate}", "target": "rate", "group": "sex"}
    summary = http.post("/upload", files=sent, data=form | {"where": "rate >= 1"}).json()
    assert (summary["task"], summary["labels"], summary["groups"], summary["ignored"]) == (
        "regression", [], ["m", "w"], 4,
    )  # fmt: skip
    assert summary["labelling"]["where"] == "rate >= 1"
    profile = http.post("/eda", json={"dataset": summary["tag"]}).json()
    assert profile["target"]["min"] == 1
    refused = http.post("/fit", json={"dataset": "faces", "name": "x", "group": "x"})
    assert refused.status_code == 400
    assert "there are: m, w" in refused.json()["error"]
    with_table = sent | {"table": ("../../t.csv", "\n".join(lines).encode())}
    summary = http.post("/upload", files=with_table, data={"name": "rates", "target": "rate"})
    assert summary.status_code == 200, summary.text
    profile = http.post("/eda", json={"dataset": "rates"}).json()
    assert (profile["target"]["min"], profile["target"]["name"]) == (0, "rate")


def test_every_worker_serves_the_new_model_within_a_second(tmp_path: Path) -> None:
    server = start_server(tmp_path / "two", workers=2)
    try:
        a = tiny_model(tmp_path / "a", server.registry)
        b = tiny_model(tmp_path / "b", server.registry, bias=GREENISH)
        # A connection stays with one worker, so many connections reach both.
        clients = [httpx.Client(base_url=server.url, timeout=30) for _ in range(16)]
        for tag in (a, b, a, b):
            assert clients[0].post("/set", json={"tag": tag}).status_code == 200
            time.sleep(1)
            answers = [c.post("/predict", files=files(jpeg("red"))).json() for c in clients]
            assert {answer["model"] for answer in answers} == {tag}
            label = "red" if tag == a else "green"
            assert {answer["predictions"][0]["label"] for answer in answers} == {label}
        for client in clients:
            client.close()
    finally:
        server.stop()


def test_the_openapi_document_has_types_examples_and_refusals(http: httpx.Client) -> None:
    spec = http.get("/docs.json").json()
    routes = {
        "/predict", "/fit", "/jobs", "/job", "/cancel", "/resume", "/eda", "/set", "/rollback",
        "/unset", "/list", "/info", "/remove", "/remove_all", "/upload", "/datasets",
        "/diff", "/findings", "/fix", "/remove_dataset", "/samples", "/eda_report", "/dataset",
    }  # fmt: skip
    assert routes <= set(spec["paths"])
    schemas = spec["components"]["schemas"]
    fit = schemas["FitRequest"]["properties"]
    assert [option.get("type") for option in fit["recipe"]["anyOf"]] == ["string", "object"]
    assert "examples" in fit["overrides"]
    assert schemas["PredictRequest"]["properties"]["images"]["items"]["format"] == "binary"
    assert {"probabilities", "abstained", "score", "interval"} <= set(
        schemas["Prediction"]["properties"]
    )
    for route in routes:
        responses = spec["paths"][route]["post"]["responses"]
        assert {"200", "400", "404", "409"} <= set(responses)
    # Every reference leads somewhere.
    for part in json.dumps(spec).split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in schemas


def test_bentomls_own_client_can_call_it(server: Server, active: str, tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(jpeg("green"))
    # In a process of its own: that client leaves its temporary folder to the garbage collector.
    code = f"""
import bentoml
with bentoml.SyncHTTPClient({server.url!r}) as client:
    print(client.predict(images=[{str(picture)!r}], top_k=1)["predictions"][0]["label"])
    print(client.list()["active"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["green", active], done.stderr


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOSPC, 503), (errno.EMFILE, 503), (errno.ENOTCONN, 500)]
)
def test_a_full_disk_is_told_from_a_fault(number: int, status: int) -> None:
    @endpoint("/x", Nothing, ActiveResponse, role="manage")
    async def failing(self: object) -> None:
        raise OSError(number, "no")

    answer = asyncio.run(failing.func(None))
    assert answer.status_code == status
