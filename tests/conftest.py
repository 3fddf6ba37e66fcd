"""Fixtures that several test modules share: an empty home, a registry in it, a real server."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from imgcls.client import Client
from imgcls.registry import Registry
from imgcls.settings import get_settings

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty `BENTOML_HOME` for every test, and `IMGCLS_HOME` inside it; yields the latter."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("IMGCLS_HOME", str(tmp_path / "bentoml" / "imgcls"))
    get_settings.cache_clear()
    yield tmp_path / "bentoml" / "imgcls"
    get_settings.cache_clear()


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry()


@pytest.fixture(scope="session")
def pets_zip() -> Path:
    path = SHARED_DATA / "pets32.zip"
    if not path.is_file():
        pytest.skip("needs ../shared/data/pets32.zip, which is not part of the repository")
    return path


@dataclass
class Server:
    """A real `bentoml serve` process in a session of its own."""

    url: str
    port: int
    root: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def home(self) -> Path:
        return self.root / "bentoml" / "imgcls"

    @property
    def store(self) -> Path:
        return self.root / "bentoml" / "models"

    @property
    def registry(self) -> Registry:
        return Registry(self.home, self.store)

    def client(self) -> Client:
        return Client(self.url)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start_server(
    root: Path, *, workers: int = 1, host: str = "127.0.0.1", **settings: str
) -> Server:
    """Serve the checkout on a free port with `root` as home; ready when this returns."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root.mkdir(parents=True, exist_ok=True)
    log = root / "server.log"
    environment = os.environ | {
        "BENTOML_HOME": str(root / "bentoml"),
        "IMGCLS_HOME": str(root / "bentoml" / "imgcls"),
        "IMGCLS_WORKERS": str(workers),
        "BENTOML_DO_NOT_TRACK": "True",
        **settings,
    }
    command = [sys.executable, "-m", "bentoml", "serve", "service:ImageClassifier"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", host, "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", port, root, process, log)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{server.url}/readyz").is_success:
                return server
        time.sleep(0.1)
    server.stop()
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server a test module, starting with an empty store."""
    started = start_server(tmp_path_factory.mktemp("server"))
    yield started
    started.stop()
