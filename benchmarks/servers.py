"""Real server processes, started on free ports and always stopped again."""

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 90.0
STOP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    process: "subprocess.Popen[bytes]"
    log: Path
    started: float
    """When, by `time.perf_counter`."""

    def tail(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-4000:]


def bentoml_serve(target: str) -> tuple[str, ...]:
    """The command that serves `target` at `{port}`."""
    command = (sys.executable, "-m", "bentoml", "serve", target)
    return (*command, "--host", "127.0.0.1", "--port", "{port}")


@contextlib.contextmanager
def started(
    command: Sequence[str], *, cwd: Path = ROOT, env: Mapping[str, str]
) -> Iterator[Server]:
    """Run `command` until the block ends, whichever way it does; nothing is waited for.

    `{port}` in the command and in `env` is replaced by a free port; `env` is laid over this
    process's environment.
    """
    port = str(free_port())
    settings = {name: value.replace("{port}", port) for name, value in env.items()}
    with tempfile.NamedTemporaryFile(prefix="serve-", suffix=".log") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [part.replace("{port}", port) for part in command],
            cwd=cwd,
            env={**os.environ, "BENTOML_DO_NOT_TRACK": "True", **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Server(f"http://127.0.0.1:{port}", process, Path(log.name), begun)
        finally:
            _stop(process)


@contextlib.contextmanager
def serving(target: str, *, cwd: Path = ROOT, env: Mapping[str, str]) -> Iterator[Server]:
    """`bentoml serve target`, ready to answer, until the block ends.

    Raises `SystemExit`, with the end of the server's log, where it does not answer `/readyz`.
    """
    with started(bentoml_serve(target), cwd=cwd, env=env) as server:
        _wait_ready(server, target)
        yield server


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
    raise SystemExit(f"`bentoml serve {target}` is not ready. Its log ends:\n{server.tail()}")


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
