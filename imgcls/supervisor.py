"""What `imgcls serve` becomes: the process above the workers.

The workers are BentoML's own, started as `bentoml serve` starts them and kept alive by the same
process manager, circus (as the distribution kantoku). BentoML's own parent imports BentoML and the
service before it starts a worker; this one needs neither, so that the first prediction comes
sooner. In a container it replaces workers that die, too, where BentoML leaves that to others.

    python -m imgcls.supervisor --host 127.0.0.1 --port 3000 --workers 1 service:ImageClassifier
"""

import argparse
import ipaddress
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from circus.arbiter import Arbiter
from circus.sockets import CircusSocket
from circus.watcher import Watcher

_SOCKET = "http"
_BACKLOG = 2048
_GRACE = 30
"""Seconds for requests under way when the server is stopped; then workers are killed."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m imgcls.supervisor", description=__doc__)
    parser.add_argument("service", help="what the workers load, as `bentoml serve` takes it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    # As in `settings`, whose import alone would take as long as everything here.
    parser.add_argument("--workers", type=int, default=os.environ.get("IMGCLS_WORKERS", "1"))
    parser.add_argument("--working-dir", type=Path, default=Path.cwd())
    given = parser.parse_args(arguments)
    # The control sockets and the counts of dead workers are this server's own: nobody else can
    # reach the ones or wipe the others.
    with tempfile.TemporaryDirectory(prefix="imgcls-serve-") as scratch:
        counts = Path(scratch) / "metrics"
        counts.mkdir()
        worker = Watcher(
            name="service",
            cmd=_worker(given.service),
            numprocesses=given.workers,
            working_dir=str(given.working_dir),
            copy_env=True,
            env={"PROMETHEUS_MULTIPROC_DIR": str(counts)},
            use_sockets=True,
            stop_children=True,
            graceful_timeout=_GRACE,
            close_child_stdin=True,
        )
        listening = CircusSocket.load_from_config(
            {
                "name": _SOCKET,
                "host": given.host,
                "port": given.port,
                "family": _family(given.host),
                "backlog": _BACKLOG,
                # A socket a worker: the kernel then spreads connections. From one that all share,
                # whoever is awake takes a burst of them whole, and other workers' cores lie idle.
                "so_reuseport": given.workers > 1,
            }
        )
        arbiter = Arbiter(
            [worker],
            endpoint=f"ipc://{scratch}/control",
            pubsub_endpoint=f"ipc://{scratch}/events",
            sockets=[listening],
            check_delay=10,
        )
        arbiter.start()


def _worker(service: str) -> str:
    """The command of a worker; circus puts in what stands in brackets."""
    start = shlex.join([sys.executable, "-m", "_bentoml_impl.worker.service", service])
    socket = f"--fd $(circus.sockets.{_SOCKET}) --backlog {_BACKLOG}"
    return f"{start} {socket} --worker-id $(CIRCUS.WID)"


def _family(host: str) -> str:
    """Names are looked up as IPv4, as BentoML does."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        version = 4
    return "AF_INET6" if version == 6 else "AF_INET"


if __name__ == "__main__":
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    main()
