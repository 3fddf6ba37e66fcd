"""Real `bentoml serve` processes, started on free ports and always stopped again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
BENTOML_SERVE = (sys.executable, "-m", "bentoml", "serve")
START_TIMEOUT = 90.0
STOP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    process: "subprocess.Popen[bytes]"
    log: Path


@contextlib.contextmanager
def serving(target: str, *, cwd: Path = ROOT, env: Mapping[str, str]) -> Iterator[Server]:
    """`bentoml serve target` until the block ends, whichever way it does.

    `env` is laid over this process's environment. Raises `SystemExit`, with the end of the
    server's log, where the server does not answer `/readyz`.
    """
    port = free_port()
    with tempfile.NamedTemporaryFile(prefix="serve-", suffix=".log") as log:
        process = subprocess.Popen(
            [*BENTOML_SERVE, target, "--host", "127.0.0.1", "--port", str(port)],
            cwd=cwd,
            env={**os.environ, "BENTOML_DO_NOT_TRACK": "True", **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server = Server(f"http://127.0.0.1:{port}", process, Path(log.name))
        try:
            _wait_ready(server, target)
            yield server
        finally:
            _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop_on_sigterm() -> None:
    """Turn SIGTERM into `SystemExit`, so that `serving` blocks end and stop their servers."""

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)


def _wait_ready(server: Server, target: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError):
            urllib.request.urlopen(f"{server.url}/readyz", timeout=2).close()
            return
        time.sleep(0.2)
    tail = server.log.read_text(errors="replace")[-4000:]
    raise SystemExit(f"`bentoml serve {target}` is not ready. Its log ends:\n{tail}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """The server and its workers are one process group: ask it to end, then insist."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
