"""What `imgcls serve` becomes: the process above the workers.

The workers are BentoML's own, started as `bentoml serve` starts them and kept alive by the same
process manager, circus (as the distribution kantoku). BentoML's own parent imports BentoML and the
service before it starts a worker; this one needs neither, so that the first prediction comes
sooner. In a container it replaces workers that die, too, where BentoML leaves that to others. Where
none can start, it ends with an error.

    python -m imgcls.supervisor --host 127.0.0.1 --port 3000 --workers 1 service:ImageClassifier
"""

import argparse
import ipaddress
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from circus.arbiter import Arbiter
from circus.sockets import CircusSocket
from circus.watcher import Watcher

_SOCKET = "http"
_BACKLOG = 2048
_REQUESTS_END = 25
"""Seconds for requests under way when the server is stopped; then workers drop them."""
_GRACE = 30
"""Seconds after which workers that still have not ended are killed, with all that they started:
trainings too, which otherwise go on."""
_LOOK = 2
"""Seconds between two looks for dead workers."""
_START = 60
"""Seconds in which an error that ends every worker ends the server: it would not start in a hundred
attempts either."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m imgcls.supervisor", description=__doc__)
    parser.add_argument("service", help="what the workers load, as `bentoml serve` takes it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    # As in `settings`, whose import alone would take as long as everything here.
    parser.add_argument("--workers", type=int, default=os.environ.get("IMGCLS_WORKERS", "1"))
    parser.add_argument("--working-dir", type=Path, default=Path.cwd())
    given = parser.parse_args(arguments)
    hangup = signal.getsignal(signal.SIGHUP)
    try:
        with tempfile.TemporaryDirectory(prefix="imgcls-serve-") as scratch:
            arbiter = _arbiter(given, Path(scratch))
            # `nohup` stays in force, and a closed terminal ends the server instead of reloading it.
            if hangup is signal.SIG_IGN:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            else:
                signal.signal(signal.SIGHUP, lambda *_: arbiter.ctrl.sys_hdl.quit())
            arbiter.start().result()
    except OSError as err:  # the port, the temporary folder
        sys.exit(f"error: the server cannot start: {err}")
    except RuntimeError:
        sys.exit("error: the workers cannot start; what stands above says why.")


def _arbiter(given: argparse.Namespace, scratch: Path) -> Arbiter:
    # The counts of dead workers are this server's own: no other one wipes them.
    counts = scratch / "metrics"
    counts.mkdir()
    worker = Watcher(
        name="service",
        cmd=_worker(given.service),
        numprocesses=given.workers,
        working_dir=str(given.working_dir),
        copy_env=True,
        env={"PROMETHEUS_MULTIPROC_DIR": str(counts), "IMGCLS_SUPERVISOR": str(os.getpid())},
        use_sockets=True,
        graceful_timeout=_GRACE,
        close_child_stdin=True,
        hooks={"after_reap": (_give_up(time.monotonic() + _START), True)},
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
    return Arbiter(
        [worker],
        # Within this process: whoever reached these sockets could start programs.
        endpoint="inproc://control",
        pubsub_endpoint="inproc://events",
        sockets=[listening],
        check_delay=_LOOK,
    )


def _give_up(until: float) -> Callable[..., None]:
    """What circus calls for each dead worker: lets the server end where none could start."""

    def after_reap(watcher: Watcher, exit_code: int, **_: Any) -> None:
        if exit_code > 0 and not watcher.processes and time.monotonic() < until:
            watcher.respawn = False  # without any worker, the arbiter ends

    return after_reap


def _worker(service: str) -> str:
    """The command of a worker; circus puts in what stands in brackets."""
    start = shlex.join([sys.executable, "-m", "_bentoml_impl.worker.service", service])
    socket = f"--fd $(circus.sockets.{_SOCKET}) --backlog {_BACKLOG}"
    end = f"--timeout-graceful-shutdown {_REQUESTS_END}"
    return f"{start} {socket} {end} --worker-id $(CIRCUS.WID)"


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
