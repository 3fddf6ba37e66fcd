"""The process above the workers: what it leaves running when it ends, and when it gives up."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgcls import Client
from imgcls.cli.local_server import check_port, free_port, serve_command
from imgcls.data import DatasetStore
from imgcls.errors import ImgclsError
from imgcls.jobs import Jobs
from tests.fakes import class_folders

ROOT = Path(__file__).parents[1]
Process = subprocess.Popen[bytes]


@contextlib.contextmanager
def supervised(port: int, log: Path) -> Iterator[Process]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            serve_command("127.0.0.1", port),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_a_closed_terminal_ends_the_server_and_a_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as macOS has them, and longer than the name of a Unix socket may be.
    temporary = tmp_path / ("t" * 100)
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    # Under nohup it is ignored, and so it would be in what is started here.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    dataset = DatasetStore().add(class_folders(tmp_path / "photos"), name="photos")
    port = free_port()
    with (
        supervised(port, tmp_path / "server.log") as server,
        Client(f"http://127.0.0.1:{port}") as client,
    ):
        client.wait_ready(90)
        signal.signal(signal.SIGHUP, before)
        job = client.fit(dataset.tag, "photos", overrides={"epochs": 10_000}).job
        server.send_signal(signal.SIGHUP)
        assert server.wait(60) == 0
    assert list(temporary.glob("imgcls-serve-*")) == []
    jobs = Jobs()
    assert not jobs.get(job.id).over
    assert jobs.cancel(job.id).state == "cancelled"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    port = free_port()
    with (
        supervised(port, tmp_path / "server.log") as server,
        Client(f"http://127.0.0.1:{port}") as client,
    ):
        client.wait_ready(90)
        with pytest.raises(ImgclsError):
            check_port("127.0.0.1", port)
        server.kill()
    deadline = time.monotonic() + 30
    while True:
        try:
            return check_port("127.0.0.1", port)
        except ImgclsError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_server_whose_workers_cannot_start_ends(tmp_path: Path) -> None:
    (tmp_path / "bentoml").mkdir()
    (tmp_path / "bentoml" / "models").write_text("not a folder")
    log = tmp_path / "server.log"
    with supervised(free_port(), log) as server:
        assert server.wait(90) == 1
    assert log.read_text().splitlines()[-1].startswith("error: the workers cannot start")
