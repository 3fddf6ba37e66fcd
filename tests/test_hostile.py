"""A real service under hostile requests: each is refused, and good ones are answered meanwhile."""

import concurrent.futures
import io
import itertools
import os
import random
import shutil
import socket
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from loadtests.hostile import (
    Attack,
    append_garbage,
    attacks,
    cut_short,
    double_a_chunk,
    drop_a_chunk,
    edit_anywhere,
    fault,
    flip_bits,
    send,
    status,
)
from loadtests.multipart import FORM_TYPE
from tests.conftest import Server, start_server
from tests.fakes import class_folders, jpeg, tiny_model
from tests.hostile_archives import MB, add_zeros, claim_size, encrypt, million_empty

COUNT = int(os.environ.get("HOSTILE_REQUESTS", "2000"))
SEED = int(os.environ.get("HOSTILE_SEED", "0"))
EACH = 25
"""Hostile requests before a good one."""
STALL_S = 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers with an active model, and little patience with bodies that stand still."""
    root = tmp_path_factory.mktemp("hostile")
    started = start_server(root, workers=2, IMGCLS_BODY_STALL_S=str(STALL_S))
    tag = tiny_model(root / "model", started.registry)
    httpx.post(f"{started.url}/set", json={"tag": tag}).raise_for_status()
    yield started
    started.stop()


def workers(server: Server) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children(recursive=True)}


def memory(server: Server) -> int:
    """Bytes that all processes of the service have in memory."""
    family = [server.process.pid, *workers(server)]
    return sum(psutil.Process(pid).memory_info().rss for pid in family)


def label_of_a_good_picture(server: Server) -> str:
    """What a new client, on a connection of its own, is told about a green picture."""
    answer = httpx.post(f"{server.url}/predict", files={"images": ("a.jpg", jpeg("green"))})
    return str(answer.json()["predictions"][0]["label"]) if answer.is_success else answer.text


def attacked(server: Server, attack: Attack) -> str | None:
    """What is wrong with the answer to one attack, if anything."""
    try:
        return fault(attack, send("127.0.0.1", server.port, attack))
    except TimeoutError:
        return "no answer in time"


def test_hostile_requests_harm_neither_workers_nor_other_clients(server: Server) -> None:
    before = workers(server)
    corpus = itertools.islice(attacks(SEED), COUNT)
    faults: list[str] = []
    good: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        while batch := list(itertools.islice(corpus, EACH)):
            asked = threads.submit(label_of_a_good_picture, server)
            found = threads.map(lambda attack: attacked(server, attack), batch)
            faults += [f"{a.kind} {a.name}: {f}" for a, f in zip(batch, found, strict=True) if f]
            good.append(asked.result())
    assert not faults, "\n".join(faults[:20])
    assert set(good) == {"green"}
    assert len(good) >= COUNT // EACH
    assert workers(server) == before


def test_the_same_seed_makes_the_same_attacks() -> None:
    first, again, other = (list(itertools.islice(attacks(seed), 50)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_bodies_that_stand_still_are_refused_and_hold_up_nobody(server: Server) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        b"Content-Type: " + FORM_TYPE + b"\r\n\r\n--"
    )
    slow = [socket.create_connection(("127.0.0.1", server.port), 30) for _ in range(100)]
    try:
        for connection in slow:
            connection.sendall(head)
        assert label_of_a_good_picture(server) == "green"
        for connection in slow:
            answer = b""
            while chunk := connection.recv(65_536):  # to its end: the connection is closed
                answer += chunk
            assert status(answer) == 408
            assert b'"code":"body_stalled"' in answer
    finally:
        for connection in slow:
            connection.close()


def test_a_body_that_comes_slowly_but_comes_is_read(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for letter in b'{"tag": "nothing"}':
            yield bytes([letter])
            time.sleep(STALL_S / 10)

    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/info", content=chunks(), headers=headers, timeout=30)
    assert answer.json()["code"] == "model_not_found"


def test_damaged_archives_are_read_or_refused(server: Server, tmp_path: Path) -> None:
    folders = str(class_folders(tmp_path / "colours", per_class=4))
    whole = [
        Path(shutil.make_archive(str(tmp_path / kind), kind, folders)).read_bytes()
        for kind in ("zip", "tar", "gztar", "xztar")
    ]
    draw = random.Random(SEED)
    damages = (flip_bits, cut_short, drop_a_chunk, double_a_chunk, edit_anywhere, append_garbage)
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=server.url, timeout=30) as http:
        for _ in range(COUNT // 10):
            archive = draw.choice(damages)(draw.choice(whole), draw)
            answer = http.post("/upload", files={"archive": archive}, data={"name": "hostile"})
            statuses[answer.status_code] += 1
            assert answer.status_code in (200, 400), answer.text
    assert statuses[200]
    assert statuses[400]


def test_hostile_archives_are_refused_by_name_in_little_memory(
    server: Server, tmp_path: Path
) -> None:
    whole = Path(shutil.make_archive(str(tmp_path / "a"), "zip", class_folders(tmp_path / "c")))

    def harmed(harm: Callable[[Path], None]) -> bytes:
        path = Path(shutil.copy(whole, tmp_path / "harmed.zip"))
        harm(path)
        return path.read_bytes()

    def add(name: str, data: bytes) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(name, data)

        return change

    refused = {
        "100 times its size": add_zeros,
        "1,000,000 images are empty": million_empty,
        "encrypted": encrypt,
        "'../red/x.jpg', which points outside": add("../red/x.jpg", jpeg()),
        "'/etc/x.jpg', which points outside": add("/etc/x.jpg", jpeg()),
    }
    before = memory(server)
    with httpx.Client(base_url=server.url, timeout=120) as http:

        def upload(harm: Callable[[Path], None]) -> httpx.Response:
            return http.post("/upload", files={"archive": harmed(harm)}, data={"name": "harm"})

        for why, harm in refused.items():
            answer = upload(harm)
            assert answer.status_code == 400, answer.text
            assert why in answer.json()["error"]
        assert not any(
            row["tag"].startswith("harm:") for row in http.post("/datasets").json()["datasets"]
        )
        png = io.BytesIO()
        Image.new("RGB", (12, 10)).save(png, "PNG")
        huge = claim_size(png.getvalue(), "PNG")
        for name, data in [("red/huge.png", huge), ("red/inner.zip.jpg", whole.read_bytes())]:
            answer = upload(add(name, data))
            assert answer.json()["unreadable"] == 1, answer.text
    assert label_of_a_good_picture(server) == "green"
    assert memory(server) - before < 800 * MB


def test_json_is_read_up_to_a_mebibyte(server: Server) -> None:
    body = b'{"tag": "' + b"a" * 1_100_000 + b'"}'
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/info", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
