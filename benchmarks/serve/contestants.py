"""Who races: how each is started, and where its answers have the probabilities."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.models import CLASSES
from benchmarks.servers import bentoml_serve
from imgcls.settings import usable_cores

TINY = "tiny"
"""The default `cnn` at 32 x 32; every other network is torchvision's, at 224 x 224."""
TINY_SIDE = 32
PHOTO_NETWORKS = ("resnet18", "efficientnet_b0")

OFFLINE = ("offline-serial", "offline-threads", "offline-pipeline")
EMPTY = "bentoml-empty"

_LABELS = [f"class-{number}" for number in range(CLASSES)]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the contestants get for one network."""

    network: str
    side: int
    home: Path
    """`BENTOML_HOME` with the registered, active model."""
    model: Path
    """The model's folder in it."""
    weights: Path
    """torchvision's state dict; the tiny network has none."""


@dataclass(frozen=True, slots=True)
class Contestant:
    name: str
    command: tuple[str, ...]
    env: dict[str, str]
    probabilities: Callable[[Any], list[float]]
    """From the decoded JSON answer to those of its one picture; an empty service has none."""


def contestants(entry: Entry) -> list[Contestant]:
    """All servers that race with the network, the empty one first."""
    empty = Contestant(
        EMPTY,
        bentoml_serve("benchmarks.peers.bento_empty:BentoEmpty"),
        {"BENTOML_HOME": str(entry.home.with_name("empty"))},
        list,
    )
    if entry.network == TINY:
        return [empty, _imgcls(entry, 1), *_peers(entry, "onnx", 1), _starlette(entry)]
    both = [c for n in (1, 2) for c in [_imgcls(entry, n), *_peers(entry, "torch", n)]]
    return [empty, *both, *(_fastapi(entry, n) for n in (1, 2))]


def _imgcls(entry: Entry, workers: int) -> Contestant:
    return Contestant(
        _name("imgcls", workers),
        bentoml_serve("service:ImageClassifier"),
        {"BENTOML_HOME": str(entry.home), "IMGCLS_WORKERS": str(workers)},
        lambda answer: [answer["predictions"][0]["probabilities"][label] for label in _LABELS],
    )


def _peers(entry: Entry, runtime: str, workers: int) -> list[Contestant]:
    bento = f"benchmarks.peers.bento_{runtime}:Bento{runtime.capitalize()}"
    litserve = (sys.executable, "-m", f"benchmarks.peers.litserve_{runtime}")
    env = _settings(entry, workers)
    return [
        Contestant(_name("bentoml", workers), bentoml_serve(bento), env, lambda answer: answer[0]),
        Contestant(
            _name("litserve", workers),
            litserve,
            env | {"PEER_PORT": "{port}"},
            lambda answer: answer["output"],
        ),
    ]


def _fastapi(entry: Entry, workers: int) -> Contestant:
    app = "benchmarks.peers.fastapi_torch:app"
    return Contestant(
        _name("fastapi", workers),
        _uvicorn(app, workers),
        _settings(entry, workers),
        lambda answer: answer["probabilities"],
    )


def _starlette(entry: Entry) -> Contestant:
    return Contestant(
        "starlette",
        _uvicorn("benchmarks.peers.starlette_onnx:app", 1),
        _settings(entry, 1),
        lambda answer: answer["probabilities"],
    )


def _uvicorn(app: str, workers: int) -> tuple[str, ...]:
    command = (sys.executable, "-m", "uvicorn", app, "--port", "{port}", "--no-access-log")
    return (*command, "--workers", str(workers))


def _settings(entry: Entry, workers: int) -> dict[str, str]:
    """Of a peer. Its workers share the cores, as those of imgcls do."""
    threads = str(max(1, usable_cores() // workers))
    return {
        "BENTOML_HOME": str(entry.home.with_name("peers")),
        "OMP_NUM_THREADS": threads,
        "PEER_MODEL": str(entry.model / "model.onnx"),
        "PEER_NETWORK": entry.network,
        "PEER_SIDE": str(entry.side),
        "PEER_THREADS": threads,
        "PEER_WEIGHTS": str(entry.weights),
        "PEER_WORKERS": str(workers),
    }


def _name(framework: str, workers: int) -> str:
    return framework if workers == 1 else f"{framework}-{workers}"
