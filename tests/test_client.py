"""`imgcls.Client` against a real server: its types, its errors, and servers that are not there."""

import gzip
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import imgcls
from imgcls import Client, ModelCard
from imgcls.data import open_dataset
from imgcls.errors import (
    BadArchive,
    BadArgument,
    BadDataset,
    BadImage,
    BadRecipe,
    Conflict,
    DatasetInUse,
    DatasetNotFound,
    ImgclsError,
    JobNotFound,
    ModelInUse,
    ModelNotFound,
    NoActiveModel,
)
from tests.conftest import Server
from tests.fakes import class_folders, jpeg, left_behind, tiny_model, tiny_regression


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.client() as client:
        client.unset()
        yield client


@pytest.fixture
def tag(server: Server, tmp_path: Path) -> str:
    return tiny_model(tmp_path / "model", server.registry, "colours")


def test_predict_takes_a_path_bytes_and_lists_of_both(
    client: Client, tag: str, tmp_path: Path
) -> None:
    client.set(tag)
    path = tmp_path / "a picture.jpg"
    path.write_bytes(jpeg("blue"))
    one = client.predict(path)
    assert one.model == tag
    assert [p.label for p in one.predictions] == ["blue"]
    assert client.predict(str(path)).predictions == one.predictions
    assert client.predict(path.read_bytes()).predictions == one.predictions
    several = client.predict([path, jpeg("red"), str(path), jpeg("green")])
    assert [p.label for p in several.predictions] == ["blue", "red", "blue", "green"]


def test_predict_passes_its_options_on(client: Client, tag: str, server: Server) -> None:
    answer = client.predict(jpeg("green"), model=tag, top_k=1).predictions[0]
    assert answer.probabilities == {"green": answer.probability}
    with pytest.raises(BadArgument):
        client.predict(jpeg("green"), model=tag, threshold=0.4)
    with pytest.raises(ModelNotFound, match="nothing"):
        client.predict(jpeg("green"), model="nothing")


def test_a_threshold_moves_the_verdict(client: Client, server: Server, tmp_path: Path) -> None:
    two = tiny_model(tmp_path / "two", server.registry, "two", ("red", "green"), threshold=0.5)
    assert client.predict(jpeg("red"), model=two).predictions[0].label == "red"
    assert client.predict(jpeg("red"), model=two, threshold=0).predictions[0].label == "green"


def test_scores_and_abstentions_have_their_fields(
    client: Client, server: Server, tag: str, tmp_path: Path
) -> None:
    scores = tiny_regression(tmp_path / "r", server.registry)
    white = client.predict(jpeg("white"), model=scores).predictions[0]
    assert (white.score, white.interval, white.label) == (10.0, (8.8, 10.0), None)
    assert (client.info(scores).task, client.list("bright").models[0].target) == (
        "regression",
        "brightness",
    )
    careful = tiny_model(tmp_path / "c", server.registry, "careful", abstain_below=0.9)
    answers = client.predict([jpeg("red"), jpeg("grey")], model=careful).predictions
    assert [answer.abstained for answer in answers] == [False, True]
    assert client.predict(jpeg("red"), model=tag).predictions[0].abstained is None


def test_one_bad_image_raises_and_among_several_it_is_told(client: Client, tag: str) -> None:
    client.set(tag)
    with pytest.raises(BadImage) as caught:
        client.predict(b"no image")
    assert caught.value.code == "unsupported_image"
    good, bad = client.predict([jpeg("red"), b"no image"]).predictions
    assert (good.label, good.error) == ("red", None)
    assert (bad.label, bad.code) == (None, "unsupported_image")


def test_without_an_active_model_predict_says_so(client: Client) -> None:
    with pytest.raises(NoActiveModel, match="/set"):
        client.predict(jpeg())


def test_models_are_listed_set_rolled_back_and_removed(
    client: Client, server: Server, tmp_path: Path
) -> None:
    first = tiny_model(tmp_path / "1", server.registry, "pair")
    second = tiny_model(tmp_path / "2", server.registry, "pair", baseline=True)
    assert [row.tag for row in client.list("pair").models] == [second, first]
    assert client.set(first).active == first
    assert client.set(second).previous == first
    assert client.list().active == second
    assert client.rollback().active == first
    card = client.info("pair")
    assert isinstance(card, ModelCard)
    assert card.tag == second
    with pytest.raises(ModelInUse):
        client.remove(first)
    assert client.unset().previous == first
    assert client.remove(first).removed == [first]
    assert client.remove_all("pair").removed == []
    with pytest.raises(ModelNotFound):
        client.info(first)


def test_upload_takes_an_archive_or_a_folder_and_eda_profiles_it(
    client: Client, tmp_path: Path
) -> None:
    folder = class_folders(tmp_path / "My Colours")
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, path.relative_to(folder))
    by_folder = client.upload(folder)
    by_archive = client.upload(packed)
    named = client.upload(packed, "other")
    assert [s.tag.partition(":")[0] for s in (by_folder, by_archive, named)] == [
        "my-colours",
        "packed",
        "other",
    ]
    assert by_folder.labels == by_archive.labels == ["blue", "green", "red"]
    assert by_folder.tag.partition(":")[2] == by_archive.tag.partition(":")[2]
    assert {s.tag for s in client.datasets()} >= {by_folder.tag, by_archive.tag, named.tag}
    profile = client.eda(by_folder.tag)
    assert profile.tag == by_folder.tag
    assert profile.overall.images == by_folder.images == 36
    assert client.eda(by_folder.tag, seed=3).seed == 3
    assert client.dataset("packed") == client.dataset(by_archive.tag) == by_archive
    assert client.samples(by_folder.tag, label="red").startswith(b"\x89PNG")
    assert b"<h2>Samples</h2>" in client.eda_report(by_folder.tag)
    with pytest.raises(BadArgument, match="no class 'pink'"):
        client.samples(by_folder.tag, label="pink")


def test_versions_are_compared_and_an_upload_is_deleted(
    client: Client, server: Server, tmp_path: Path
) -> None:
    folder = class_folders(tmp_path / "versions")
    old = client.upload(folder).tag
    (folder / "red" / "000.jpg").rename(folder / "blue" / "new.jpg")
    new = client.upload(folder).tag
    found = client.diff(old, "versions")
    assert (found.new, found.same + found.moved.total) == (new, 35)
    assert [(c.path, c.was, c.now) for c in found.relabelled.images] == [
        ("blue/new.jpg", "red", "blue")
    ]
    removed = client.remove_dataset(old)
    assert removed.removed == [old]
    assert new in removed.left
    assert not (server.home / "datasets" / old.replace(":", "/")).exists()
    with pytest.raises(DatasetNotFound):
        client.eda(old)


def test_a_fault_is_found_and_a_proposed_fix_makes_a_version_without_it(
    client: Client, tmp_path: Path
) -> None:
    folder = class_folders(tmp_path / "faults")
    (folder / "red" / "bad.jpg").write_bytes(b"x")
    tag = client.upload(folder).tag
    found = client.findings(tag, min_confidence=0.9)
    assert found.dataset == tag
    assert found.total["unreadable"] == 1
    proposed = client.fix(tag)
    assert proposed.dataset is None
    wanted = [row for row in proposed.fixes if row.path == "red/bad.jpg"]
    fixed = client.fix(tag, wanted)
    assert fixed.fixes == wanted
    assert fixed.dataset is not None
    assert (fixed.dataset.unreadable, fixed.dataset.images) == (0, 36)
    assert "unreadable" not in client.findings(fixed.dataset.tag).total
    assert fixed.total == 1
    whole = client.fix(tag, apply=True, min_confidence=1)
    assert whole.dataset is not None
    assert whole.dataset.unreadable == 0
    assert whole.total == client.fix(tag, min_confidence=1).total == len(whole.fixes)
    with pytest.raises(BadArgument, match="nowhere"):
        client.fix(tag, [wanted[0].model_copy(update={"path": "nowhere.jpg"})])


def test_an_upload_removes_what_a_killed_one_left_behind(
    client: Client, server: Server, tmp_path: Path
) -> None:
    left = left_behind(server.home, ".upload-")
    client.upload(class_folders(tmp_path / "colours"))
    assert not left.exists()
    assert list(server.home.glob(".upload-*")) == []


def test_of_a_folder_only_its_images_are_sent(
    client: Client, server: Server, tmp_path: Path
) -> None:
    folder = class_folders(tmp_path / "mixed")
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(jpeg("red"))
    (folder / "red" / "outside.jpg").symlink_to(outside)
    (folder / "red" / "again.jpg").symlink_to("000.jpg")
    (folder / "elsewhere").symlink_to(tmp_path)
    (folder / ".git").mkdir()
    for name in (".env", ".git/1.jpg", "notes.txt", "red/labels.csv"):
        (folder / name).write_text("secret")
    (folder / "red" / os.fsdecode(b"\xff.jpg")).write_bytes(jpeg("red"))
    images = {f"{colour}/{n:03d}.jpg" for colour in ("red", "green", "blue") for n in range(12)}
    summary = client.upload(folder, "mixed")
    (stored,) = (server.home / "datasets" / "mixed").glob("*/archive-*")
    with tarfile.open(stored) as archive:
        assert set(archive.getnames()) == images | {"red/again.jpg", "red/\\udcff.jpg"}
    with open_dataset(folder, name="mixed") as local:
        assert local.tag == summary.tag


def test_a_folder_that_is_no_dataset_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with Client("http://127.0.0.1:9") as client, pytest.raises(BadDataset, match="no images"):
        client.upload(tmp_path)


def test_files_may_have_names_that_are_no_text(client: Client, tag: str, tmp_path: Path) -> None:
    image = tmp_path / os.fsdecode(b"\xff.jpg")
    image.write_bytes(jpeg("red"))
    assert client.predict(image, model=tag).predictions[0].label == "red"
    packed = tmp_path / os.fsdecode(b"\xff.zip")
    packed.write_bytes(b"PK nothing")
    with pytest.raises(BadArchive, match=r"^The uploaded file is not a zip or tar archive"):
        client.upload(packed)
    packed.write_bytes(gzip.compress(b"hello" * 1000)[:-20])
    with pytest.raises(BadArchive, match=r"^The uploaded file is "):
        client.upload(packed)


def test_refusals_keep_their_class(client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK nothing")
    with pytest.raises(BadArchive):
        client.upload(broken)
    with pytest.raises(DatasetNotFound):
        client.eda("nothing")
    with pytest.raises(DatasetNotFound):
        client.fit("nothing", "colours")
    with pytest.raises(BadRecipe, match="learning_rate"):
        client.fit("nothing", "colours", "cnn", overrides={"learning_rate": 1})
    for ask in (client.job, client.cancel, client.resume):
        with pytest.raises(JobNotFound):
            ask("20261121-083000-123456-a1b2")
    with pytest.raises(Conflict, match="earlier"):
        all_the_way_back(client)


def all_the_way_back(client: Client) -> None:
    while True:
        client.rollback()


def test_fit_starts_a_job_that_is_followed_and_cancelled(client: Client, tmp_path: Path) -> None:
    dataset = client.upload(class_folders(tmp_path / "fit"))
    job = client.fit(
        dataset.tag, "colours", "cnn", overrides={"epochs": 10_000, "early_stop.patience": 0}
    ).job
    seen = []
    for state in client.follow(job.id, poll=0.05):
        seen.append(state)
        if len(seen) == 1:
            with pytest.raises(DatasetInUse, match=job.id):
                client.remove_dataset(dataset.tag)
            client.cancel(job.id)
    assert seen[-1].over
    assert client.remove_dataset(dataset.tag).removed == [dataset.tag]
    assert seen[-1].state == "cancelled"
    assert job.id in [known.id for known in client.jobs()]


def test_no_server_is_told_in_a_sentence() -> None:
    with Client("http://127.0.0.1:9", timeout=5) as client:
        assert not client.ready()
        with pytest.raises(ConnectionError, match="imgcls serve"):
            client.list()
        with pytest.raises(TimeoutError, match="not ready"):
            client.wait_ready(0.2)


class _Strange(BaseHTTPRequestHandler):
    """Answers by the path: a page of HTML, an unknown code, or the token it was given."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, body = 502, b"<html>Bad gateway</html>"
        if self.path == "/info":
            status, body = 418, b'{"error": "I am a teapot.", "code": "teapot"}'
        if self.path == "/unset":
            body = json.dumps({"active": self.headers.get("authorization")}).encode()
            status = 200
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def strange() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Strange) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_unknown_refusals_name_their_status(strange: str) -> None:
    with Client(strange) as client:
        with pytest.raises(ImgclsError, match=r"502.*gateway"):
            client.list()
        with pytest.raises(ImgclsError, match=r"418.*teapot"):
            client.info("pets")


def test_a_token_is_sent(strange: str) -> None:
    with Client(strange, token="s3cret") as client:
        assert client.unset().active == "Bearer s3cret"


def test_the_package_gives_its_names_lazily() -> None:
    assert set(imgcls.__all__) <= set(dir(imgcls))
    assert all(getattr(imgcls, name) for name in imgcls.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        imgcls.nonsense  # noqa: B018
