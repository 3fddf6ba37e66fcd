"""Cluster: the Ray cluster that work is sent to, connected to for as long as it is needed.

An existing one by its address; without an address one is started on this machine and ended with
the work. Nothing of Ray's own is shown: no log lines, progress bars or usage reports.
"""

import importlib.util
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imgcls.errors import BadArgument, Conflict
from imgcls.settings import usable_cores

_STORE_BYTES = 256 * 2**20
"""Object store of a cluster of our own: chunks are small, and few are under way."""
_REACH_S = 10.0


def check_installed() -> None:
    """Raises `Conflict` where Ray is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("ray", "fsspec")):
        raise Conflict(
            "--engine ray needs Ray: install imgcls[scale] here and on every node of the cluster, "
            "or leave the option out to work on this machine."
        )


def address_or_default(address: str | None) -> str:
    """The address, or what `RAY_ADDRESS` says; `local` for a cluster of our own."""
    return address or os.environ.get("RAY_ADDRESS") or "local"


@contextmanager
def connect(address: str | None = None) -> Iterator[None]:
    """Be connected to the cluster at `address`, or at `RAY_ADDRESS`, or to one of our own.

    Within it `chunks.mapped` works. A connection that the process has already is used, and kept.
    Raises `Conflict` where Ray is not installed, `BadArgument` where the cluster cannot be
    reached.
    """
    check_installed()
    address = address_or_default(address)
    _check_reachable(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with silent():
        import ray

        known = ray.is_initialized()
        if not known:
            _init(address)
    try:
        yield
    finally:
        if not known:
            with _own_signals():
                ray.shutdown()


@contextmanager
def silent() -> Iterator[None]:
    """Ignore what Ray deprecates of its own, and have it log and draw nothing from now on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        # What goes wrong is raised; Ray would print it too, at length.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield


def _init(address: str) -> None:
    import ray

    own: dict[str, Any] = {}
    if address == "local":
        own = {
            "num_cpus": usable_cores(),
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
        }
    try:
        with _own_signals():
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except Exception as err:  # Ray raises bare ones, for a node that is slow to start, say
        raise _unusable(address, err) from err


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    if address in ("local", "auto"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        raise BadArgument(
            f"{address[:100]!r} is no address of a Ray cluster; give HOST:PORT as "
            "`ray start --head` prints it, or `auto` for the cluster of this machine."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except (OSError, OverflowError) as err:
        raise _unusable(address, err) from err


def _unusable(address: str, err: Exception) -> BadArgument:
    told = " ".join(str(err).split())[:300]
    return BadArgument(
        f"The Ray cluster at {address} cannot be used ({told}); check --address and RAY_ADDRESS, "
        "and that Ray is of the same version there."
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray sets a handler for SIGTERM; the process keeps its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
