"""What happens when something under a real service breaks: `docs/reliability.md` as tests."""

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.mmap_dict import MmapedDict

from imgcls.data import DatasetStore
from imgcls.data import scan as scan_module
from imgcls.data.journal import Journal
from imgcls.errors import BadDataset
from imgcls.files import write_atomic
from imgcls.metric_files import ReservedDict
from imgcls.registry import Registry
from imgcls.settings import get_settings
from tests.commands import imgcls
from tests.conftest import ROOT, Server, start_server
from tests.fakes import class_folders, jpeg, tiny_model

IDLE = 10_000
PLAIN: dict[str, Any] = {"timeout": 30, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
"""For single requests: a context that is made once, since reading certificates takes its time."""
GARBAGE = bytes(range(256)) * 3


def predict(server: Server, **options: str) -> httpx.Response:
    """One green picture, on a connection of its own."""
    files = {"images": ("a.jpg", jpeg("green"))}
    return httpx.post(f"{server.url}/predict", files=files, data=options, **PLAIN)


def post(server: Server, path: str, **body: object) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, **PLAIN)


def set_active(server: Server, tag: str) -> None:
    post(server, "/set", tag=tag).raise_for_status()
    assert predict(server).json()["model"] == tag


def goes_on(server: Server, tag: str) -> None:
    """Predictions of the loaded model and all lists answer."""
    assert predict(server).json().get("model") == tag
    for path in ("/list", "/datasets", "/jobs"):
        answer = post(server, path)
        assert answer.status_code == 200, answer.text
    assert post(server, "/list").json()["active"] == tag


def refused(answer: httpx.Response, name: str) -> None:
    assert 400 <= answer.status_code < 500, answer.text
    assert name in answer.json()["error"], answer.text


def damages(path: Path) -> Iterator[str]:
    """Damage a file where it lies, in one way after the other; it is whole again at the end."""
    whole = path.read_bytes()
    middle = len(whole) // 2
    try:
        for name, data in {
            "cut": whole[:middle],
            "empty": b"",
            "garbage": GARBAGE,
            "another kind of JSON": b"[[1]]",
            "a hole": whole[:middle] + b"\0" * 32 + whole[middle + 32 :],
        }.items():
            path.write_bytes(data)
            yield name
    finally:
        write_atomic(path, whole)


@pytest.fixture(scope="module")
def tag(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("model"), server.registry)


@pytest.fixture(scope="module")
def other(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("other"), server.registry, "other")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system (root, CAP_SYS_ADMIN)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def archive_of_colours(folder: Path) -> bytes:
    made = shutil.make_archive(str(folder / "c"), "zip", class_folders(folder / "colours"))
    return Path(made).read_bytes()


def upload(server: Server, archive: bytes, name: str = "colours") -> httpx.Response:
    files = {"archive": ("a.zip", archive)}
    return httpx.post(f"{server.url}/upload", files=files, data={"name": name}, **PLAIN)


# Files that are damaged.


def test_damaged_files_of_the_active_model(server: Server, tag: str) -> None:
    set_active(server, tag)
    folder = server.registry.folder(tag)
    checked = {"card.json", "model.onnx", "golden.json"}
    golden = folder / "golden"
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in [*files, golden / "golden.json", golden / "00.jpg", folder.parent / "latest"]:
        for damage in damages(path):
            assert predict(server).json().get("model") == tag, (path, damage)
            assert post(server, "/list").status_code == 200
            for answer in (
                post(server, "/set", tag=tag),
                post(server, "/info", tag=tag),
                predict(server, model=tag),
            ):
                assert answer.status_code < 500, (path, damage, answer.text)
            if path.name in checked or (path.suffix == ".jpg" and damage != "a hole"):
                refused(post(server, "/set", tag=tag), path.name)
    set_active(server, tag)


def test_a_damaged_pointer(server: Server, tag: str, other: str) -> None:
    set_active(server, other)
    set_active(server, tag)
    pointer = server.home / "active.json"
    for _ in damages(pointer):
        time.sleep(0.3)  # longer than `IMGCLS_POLL_MS`
        goes_on(server, tag)
        for path in ("/rollback", "/unset"):
            refused(post(server, path), "active.json")
        refused(post(server, "/set", tag=other), "active.json")
        refused(post(server, "/remove", tag=other), "active.json")
        assert httpx.get(f"{server.url}/readyz", **PLAIN).status_code == 200
    told = json.loads(pointer.read_text())
    for wrong in ({"tag": "no tag!"}, {"tag": "gone:1"}):
        write_atomic(pointer, json.dumps(told | wrong))
        time.sleep(0.3)
        assert predict(server).json()["model"] == tag
        assert post(server, "/list").status_code == 200
    pointer.unlink()
    set_active(server, tag)


def test_a_damaged_history_of_promotions(server: Server, tag: str, other: str) -> None:
    set_active(server, tag)
    history = server.home / "promotions.jsonl"
    whole = len(server.registry.promotions())
    with history.open("ab") as file:
        file.write(b'{"time": "20')  # cut by a kill
    set_active(server, other)
    assert len(server.registry.promotions()) == whole + 1
    for _ in damages(history):
        goes_on(server, other)
        assert len(server.registry.promotions()) <= whole
    assert server.registry.promotions()[-1]["tag"] == other


def test_damaged_files_of_a_dataset(server: Server, tag: str, tmp_path: Path) -> None:
    set_active(server, tag)
    archive = archive_of_colours(tmp_path)
    dataset = upload(server, archive).json()["tag"]
    (entry,) = server.home.glob("datasets/colours/*/dataset.json")
    (index,) = entry.parent.glob("index-*.parquet")
    (stored,) = entry.parent.glob("archive-*.zip")
    for path in (entry, index):
        for _ in damages(path):
            goes_on(server, tag)
            refused(post(server, "/eda", dataset=dataset), path.name)
            refused(post(server, "/fit", dataset=dataset, name="x"), path.name)
    for _ in damages(stored):
        goes_on(server, tag)
        assert post(server, "/eda", dataset=dataset).status_code in (200, 400)
    entry.write_bytes(GARBAGE)
    assert upload(server, archive).json()["tag"] == dataset
    assert post(server, "/eda", dataset=dataset).status_code == 200


def test_a_bit_that_flips_in_the_index_is_seen(home: Path, tmp_path: Path) -> None:
    store = DatasetStore(home)
    summary = store.add(class_folders(tmp_path / "colours"))
    (index,) = home.glob("datasets/*/*/index-*.parquet")
    whole = index.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 200)):
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with contextlib.suppress(BadDataset):  # what nothing is read from may flip
            assert len(store.open(summary.tag)) == 36


def job_folder(root: Path, job_id: str, **event: object) -> Path:
    """A job as its files tell of it, which runs for as long as somebody holds its lock."""
    folder = root / job_id
    folder.mkdir(parents=True)
    now = datetime.now(UTC).isoformat()
    last = {"time": now, "stage": "training", "stage_began": now, "started_at": now} | event
    request = {"dataset": "a:0123456789ab", "recipe": {"kind": "cnn"}, "name": "a"}
    for name, content in {
        "request.json": json.dumps(request),
        "process.json": json.dumps({"pid": 2**30}),
        "events.jsonl": json.dumps(last) + "\n",
        "log.txt": "text\n",
        "lock": "",
    }.items():
        (folder / name).write_text(content)
    return folder


def test_damaged_files_of_jobs(server: Server, tag: str) -> None:
    set_active(server, tag)
    root = server.home / "jobs"
    whole, over = "20260101-000000-000000-0000", "20260101-000000-000000-0001"
    job_folder(root, whole)
    folder = job_folder(root, over)
    result = {"state": "succeeded", "tag": "a:1"}
    (folder / "result.json").write_text(json.dumps(result))
    for path in sorted(folder.iterdir()):
        for damage in damages(path):
            goes_on(server, tag)
            assert whole in [job["id"] for job in post(server, "/jobs").json()["jobs"]]
            answer = post(server, "/job", id=over)
            if path.name == "request.json":
                refused(answer, path.name)
            elif path.name == "result.json":
                assert path.name in answer.json()["reason"]
            else:
                assert answer.status_code == 200, (path, damage, answer.text)
    (folder / "result.json").unlink()
    (folder / "lock").unlink()
    assert post(server, "/job", id=over).json()["state"] == "failed"


def test_a_job_whose_process_is_not_known_any_more(server: Server) -> None:
    running = "20260101-000000-000000-0002"
    folder = job_folder(server.home / "jobs", running)
    with (folder / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in damages(folder / "process.json"):
            refused(post(server, "/cancel", id=running), "process.json")
        assert post(server, "/job", id=running).json()["state"] == "running"


def test_damaged_files_of_the_shadow(server: Server, tag: str, other: str) -> None:
    set_active(server, tag)
    post(server, "/shadow", tag=other, rate=1.0).raise_for_status()
    for name in ("pointer.json", "report.json"):
        for _ in damages(server.home / "shadow" / name):
            goes_on(server, tag)
            assert post(server, "/shadow_report").status_code == 200
    assert post(server, "/shadow", tag=other, rate=1.0).json()["tag"] == other
    assert post(server, "/shadow", tag=None).status_code == 200


# The disk.


def fill(folder: Path) -> Path:
    path = folder / "fill"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return path


def test_a_full_disk(tmpfs: Path, tmp_path: Path) -> None:
    (tmpfs / "tmp").mkdir()
    archive = archive_of_colours(tmp_path)
    server = start_server(tmpfs / "server", TMPDIR=str(tmpfs / "tmp"))
    try:
        tag, other = (tiny_model(tmp_path / name, server.registry, name) for name in "ab")
        dataset = upload(server, archive).json()["tag"]
        set_active(server, tag)
        workers = psutil.Process(server.process.pid).children(recursive=True)
        filling = fill(tmpfs)
        for _ in range(3):
            goes_on(server, tag)
            time.sleep(0.3)  # the counts are written meanwhile
        large = jpeg("green") + bytes(3_000_000)
        for answer in (
            post(server, "/set", tag=other),
            post(server, "/unset"),
            post(server, "/shadow", tag=other),
            post(server, "/fit", dataset=dataset, name="a"),
            upload(server, archive, "more"),
            upload(server, bytes(3_000_000), "large"),
            httpx.post(f"{server.url}/predict", files={"images": large}, **PLAIN),
        ):
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] == "storage_unavailable"
        goes_on(server, tag)
        assert post(server, "/eda", dataset=dataset).status_code == 200
        assert httpx.get(f"{server.url}/metrics", **PLAIN).status_code == 200
        assert server.registry.promotions()[-1]["tag"] == tag
        assert [path for path in server.home.glob("jobs/*") if path.is_dir()] == []
        filling.unlink()
        set_active(server, other)
        assert psutil.Process(server.process.pid).children(recursive=True) == workers
    finally:
        server.stop()


@pytest.mark.parametrize("room_for", ["the index", "the journal"])
def test_a_pass_on_a_full_disk(
    tmpfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_for: str
) -> None:
    """What a pass keeps to go on from makes room for what it is made for."""
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (20, 20))
    monkeypatch.setattr(scan_module, "_KEEP_FILES", 1)
    photos = class_folders(tmp_path / "photos", per_class=400)
    kept: list[int] = []
    write = Journal._write

    def watched(journal: Journal, message: bytes) -> None:
        write(journal, message)
        kept.append(sum(path.stat().st_size for path in tmp_path.glob("*/datasets/.pass-*")))

    monkeypatch.setattr(Journal, "_write", watched)
    tag = DatasetStore(tmp_path / "home").add(photos, name="photos").tag
    [index] = (tmp_path / "home" / "datasets" / "photos").glob("*/index-*")
    journal, needed = kept[-1], index.stat().st_size
    assert journal > needed > 32_768
    store, filling = DatasetStore(tmpfs), fill(tmpfs)
    room = (needed if room_for == "the index" else journal) + 16_384
    os.truncate(filling, filling.stat().st_size - room)
    kept.clear()
    assert store.add(photos, name="photos").tag == tag
    assert max(kept) > 0
    assert kept[-1] == (journal if room_for == "the journal" else 0)
    assert sorted(path.name for path in store.root.iterdir()) == [".lock", "photos"]
    store.remove(tag)
    filling.unlink()
    filling = fill(tmpfs)
    with pytest.raises(OSError, match="No space"):
        store.add(photos, name="photos")
    left = [path for path in store.root.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []
    monkeypatch.setenv("IMGCLS_HOME", str(tmpfs))
    get_settings.cache_clear()
    refused = imgcls("data", "add", photos)
    assert refused.exit_code == 1
    assert "A disk is full" in refused.stderr
    assert "IMGCLS_HOME" in refused.stderr
    filling.unlink()
    assert store.add(photos, name="photos").tag == tag


def test_counts_go_on_in_memory_where_the_disk_has_no_room(tmpfs: Path) -> None:
    kept = ReservedDict(str(tmpfs / "kept.db"))
    filling = fill(tmpfs)
    fresh = ReservedDict(str(tmpfs / "fresh.db"))
    keys = [f"{number:06}{'k' * 500}" for number in range(3000)]  # more than a file has room for
    for counts in (kept, fresh):
        for key in keys:
            counts.write_value(key, 1.0, 0.0)
        assert [key for key, _, _ in counts.read_all_values()] == keys
    shown = list(MmapedDict.read_all_values_from_file(str(tmpfs / "kept.db")))
    assert 0 < len(shown) < len(keys)
    assert not (tmpfs / "fresh.db").exists()
    filling.unlink()
    room = ReservedDict(str(tmpfs / "room.db"))
    for key in keys:
        room.write_value(key, 1.0, 0.0)
    assert len(list(MmapedDict.read_all_values_from_file(str(tmpfs / "room.db")))) == len(keys)
    for counts in (kept, fresh, room):
        counts.close()


def test_a_home_that_cannot_be_written(tmpfs: Path, tmp_path: Path) -> None:
    home = tmpfs / "bentoml"
    registry = Registry(home / "imgcls", home / "models")
    tag, other = (tiny_model(tmp_path / name, registry, name) for name in "ab")
    registry.point(tag)
    for name in ("bentos", "envs", "tmp"):  # BentoML makes these when it first starts
        (home / name).mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    settings = {"BENTOML_HOME": str(home), "IMGCLS_HOME": str(home / "imgcls")}
    server = start_server(tmp_path / "server", **settings)
    try:
        goes_on(server, tag)
        assert predict(server, model=other).json()["model"] == other
        for answer in (post(server, "/set", tag=other), post(server, "/remove", tag=other)):
            assert answer.json()["code"] == "storage_unavailable", answer.text
        goes_on(server, tag)
        subprocess.run(["mount", "-o", "remount,rw", str(tmpfs)], check=True)
        set_active(server, other)
    finally:
        server.stop()


# The clock.


def test_a_clock_that_jumps(server: Server, tag: str, other: str) -> None:
    set_active(server, tag)
    for days in (-9000, 9000):
        moment = time.time() + days * 86_400
        for path in (server.home / "active.json", server.registry.folder(tag) / "card.json"):
            os.utime(path, (moment, moment))
        time.sleep(0.3)
        goes_on(server, tag)
    set_active(server, other)
    root = server.home / "jobs"
    for year, moment in ((1990, "1990-01-01T00:00:00Z"), (2090, "2090-01-01T00:00:00Z")):
        job_id = f"{year}0101-000000-000000-0000"
        told = {"time": moment, "stage_began": "2026-01-01T00:00:00Z", "progress": 0.5}
        folder = job_folder(root, job_id, **told)
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            job = post(server, "/job", id=job_id).json()
            assert job["state"] == "running"
            assert job["eta_seconds"] >= 0
        goes_on(server, other)
    local = job_folder(root, "20260101-000000-000000-0009", time="2026-01-01T00:00:00")
    assert post(server, "/job", id=local.name).status_code == 200


def test_the_pointer_is_followed_while_the_clock_stands_still_or_goes_back(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = [tiny_model(tmp_path / name, registry, name) for name in "ab"]
    began = time.time_ns()
    seen = set()
    for hours in (0, 0, -1, -1, 5):
        monkeypatch.setattr(time, "time_ns", lambda now=began + hours * 3_600_000_000_000: now)
        before = registry.stamp()
        assert registry.point(tags[len(seen) % 2]) != before
        seen.add(registry.stamp())


def test_a_dataset_from_another_clock_is_listed(home: Path, tmp_path: Path) -> None:
    store = DatasetStore(home)
    for name in ("past", "future"):
        store.add(class_folders(tmp_path / name))
    (entry,) = home.glob("datasets/future/*/dataset.json")
    told = json.loads(entry.read_text())
    told["summary"]["created_at"] = (datetime.now(UTC) + timedelta(days=9000)).isoformat()
    entry.write_text(json.dumps(told))
    assert [summary.tag.partition(":")[0] for summary in store.list()] == ["future", "past"]
    told["summary"]["created_at"] = "2026-01-01T00:00:00"  # of no time zone
    entry.write_text(json.dumps(told))
    assert [summary.tag.partition(":")[0] for summary in store.list()] == ["past"]


# Processes and connections.


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, started under the usual limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    root = tmp_path_factory.mktemp("two")
    try:
        started = start_server(root, workers=2)
        set_active(started, tiny_model(root / "model", started.registry))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        yield started
        started.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_keep_nobody_out(two: Server) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = IDLE if limit == resource.RLIM_INFINITY else min(IDLE, limit - 500)
    with contextlib.ExitStack() as idle:
        for _ in range(count):
            idle.enter_context(socket.create_connection(("127.0.0.1", two.port), 10))
        for _ in range(10):
            assert predict(two).status_code == 200
    assert predict(two).status_code == 200


def test_a_killed_worker_is_replaced_while_the_other_answers(two: Server) -> None:
    def workers() -> list[psutil.Process]:
        found = []
        for child in psutil.Process(two.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is none either
                if "--worker-id" in child.cmdline():
                    found.append(child)
        return found

    first, second = workers()
    os.kill(first.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not (len(now := workers()) == 2 and first not in now):
        with contextlib.suppress(httpx.TransportError):  # a connection that the killed one had
            assert predict(two).status_code == 200
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert second in now
    assert predict(two).status_code == 200


# The document.


def test_every_row_of_the_document_names_tests_that_exist() -> None:
    lines = (ROOT / "docs" / "reliability.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and line[2:7] not in ("fault", "--- |")]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`((?:\w+/)?test_\w+\.py)::(test_\w+)`", row.split("|")[4])
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(), row
