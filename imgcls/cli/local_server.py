"""Server: the command that starts the service, and a server that never outlives its use."""

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

import imgcls
from imgcls.client import Client
from imgcls.errors import ImgclsError

_STOP_AFTER = 10.0
"""Seconds that a server gets to stop by itself."""


@dataclass
class Server:
    """A running server; with `keep` it is left running when its block ends."""

    url: str
    pid: int
    log: Path
    keep: bool = False


def serve_command(
    host: str, port: int, *, workers: int | None = None, reload: bool = False
) -> list[str]:
    """What serves the checkout's `service.py`, or the installed package.

    That is `imgcls.supervisor`; `bentoml serve` where code is to be reloaded.
    """
    checkout = Path(imgcls.__file__).resolve().parent.parent
    if (checkout / "service.py").is_file() and (checkout / "pyproject.toml").is_file():
        where = ["service:ImageClassifier", "--working-dir", str(checkout)]
    else:
        where = ["imgcls.service:ImageClassifier"]
    where += ["--host", host, "--port", str(port)]
    if reload:
        return [sys.executable, "-m", "bentoml", "serve", *where, "--reload"]
    if workers is not None:
        where += ["--workers", str(workers)]
    return [sys.executable, "-m", "imgcls.supervisor", *where]


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def check_port(host: str, port: int) -> None:
    """Raises `ImgclsError` where the port is taken, before a server trips over it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as err:
            raise ImgclsError(
                f"Port {port} of {host} cannot be used ({err.strerror}); choose another with "
                "--port."
            ) from err


@contextlib.contextmanager
def running_server(port: int, log: Path, *, timeout: float = 60.0) -> Iterator[Server]:
    """Start a server on this machine, wait until it is ready, and stop it in the end.

    It has a process group of its own, which is stopped as a whole. Raises `ImgclsError` with the
    end of its log where it does not come up.
    """
    port = port or free_port()
    check_port("127.0.0.1", port)
    url = f"http://127.0.0.1:{port}"
    process: subprocess.Popen[bytes] | None = None
    server: Server | None = None
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                serve_command("127.0.0.1", port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(url, process.pid, log)
        with Client(url) as client:
            deadline = time.monotonic() + timeout
            while not client.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ImgclsError(f"The server did not start. {_end_of(log)}")
                time.sleep(0.1)
        yield server
    finally:
        if process is not None and not (server and server.keep):
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for sign, patience in ((signal.SIGTERM, _STOP_AFTER), (signal.SIGKILL, _STOP_AFTER)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers that their parent left behind


def _end_of(log: Path) -> str:
    last = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"Its log ({log}) ends: {' | '.join(last[-3:])[-500:]}" if last else ""
