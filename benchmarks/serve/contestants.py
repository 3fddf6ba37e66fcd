"""Who races: how each is started, and where its answers have the probabilities."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.models import CLASSES
from benchmarks.servers import bentoml_serve
from imgcls.card import GRAPH_FILE
from imgcls.settings import usable_cores

TINY = "tiny"
"""The default `cnn` at 32 x 32; every other network is torchvision's, at 224 x 224."""
TINY_SIDE = 32
PHOTO_NETWORKS = ("resnet18", "efficientnet_b0")

QUICK = "imgcls-serve"
"""imgcls as `imgcls serve` starts it: the same workers under a parent that needs less."""
OURS = (QUICK, f"{QUICK}-2", "imgcls", "imgcls-2")
INT8 = ("imgcls-int8", "imgcls-int8-2")
TORCH_PEERS = ("bentoml", "bentoml-2", "litserve", "litserve-2", "fastapi", "fastapi-2")
OFFLINE = ("offline-serial", "offline-threads", "offline-pipeline")
EMPTY = "bentoml-empty"
STARLETTE = "starlette"
NAMES = (EMPTY, *OURS, *INT8, *TORCH_PEERS, STARLETTE, *OFFLINE)

_LABELS = [f"class-{number}" for number in range(CLASSES)]


Labels = list[int | None]
"""What must be answered to each picture, as the index of a class; None where anything goes."""


@dataclass(frozen=True, slots=True)
class Served:
    """A registered, active model."""

    home: Path
    """`BENTOML_HOME`."""
    folder: Path
    """The model's own, in it."""
    labels: Labels


@dataclass(frozen=True, slots=True)
class Entry:
    """What the contestants get for one network."""

    network: str
    side: int
    model: Served
    int8: Served | None
    """The model in 8 bits, where it races too."""
    weights: Path
    """torchvision's state dict; the tiny network has none."""


@dataclass(frozen=True, slots=True)
class Contestant:
    name: str
    command: tuple[str, ...]
    env: dict[str, str]
    probabilities: Callable[[Any], list[float]]
    """From the decoded JSON answer to those of its one picture; an empty service has none."""
    labels: Labels


def contestants(entry: Entry) -> list[Contestant]:
    """All servers that race with the network, the empty one first."""
    empty = Contestant(
        EMPTY,
        bentoml_serve("benchmarks.peers.bento_empty:BentoEmpty"),
        {"BENTOML_HOME": str(entry.model.home.with_name("empty"))},
        list,
        [],
    )
    serve = (sys.executable, "-m", "imgcls.cli", "serve", "--port", "{port}")
    quick, quick_2 = (replace(_imgcls(QUICK, entry.model, n), command=serve) for n in (1, 2))
    if entry.network == TINY:
        ours = _imgcls("imgcls", entry.model, 1)
        return [empty, quick, ours, *_peers(entry, "onnx", 1), _starlette(entry)]
    racing = [empty, quick, quick_2]
    for workers in (1, 2):
        racing.append(_imgcls("imgcls", entry.model, workers))
        if entry.int8 is not None:
            racing.append(_imgcls("imgcls-int8", entry.int8, workers))
        racing += [*_peers(entry, "torch", workers), _fastapi(entry, workers)]
    return racing


def _imgcls(name: str, model: Served, workers: int) -> Contestant:
    return Contestant(
        _name(name, workers),
        bentoml_serve("service:ImageClassifier"),
        {"BENTOML_HOME": str(model.home), "IMGCLS_WORKERS": str(workers)},
        lambda answer: [answer["predictions"][0]["probabilities"][label] for label in _LABELS],
        model.labels,
    )


def _peers(entry: Entry, runtime: str, workers: int) -> list[Contestant]:
    bento = f"benchmarks.peers.bento_{runtime}:Bento{runtime.capitalize()}"
    litserve = (sys.executable, "-m", f"benchmarks.peers.litserve_{runtime}")
    env = _settings(entry, workers)
    return [
        Contestant(
            _name("bentoml", workers),
            bentoml_serve(bento),
            env,
            lambda answer: answer[0],
            entry.model.labels,
        ),
        Contestant(
            _name("litserve", workers),
            litserve,
            env | {"PEER_PORT": "{port}"},
            lambda answer: answer["output"],
            entry.model.labels,
        ),
    ]


def _fastapi(entry: Entry, workers: int) -> Contestant:
    app = "benchmarks.peers.fastapi_torch:app"
    return Contestant(
        _name("fastapi", workers),
        _uvicorn(app, workers),
        _settings(entry, workers),
        lambda answer: answer["probabilities"],
        entry.model.labels,
    )


def _starlette(entry: Entry) -> Contestant:
    return Contestant(
        STARLETTE,
        _uvicorn("benchmarks.peers.starlette_onnx:app", 1),
        _settings(entry, 1),
        lambda answer: answer["probabilities"],
        entry.model.labels,
    )


def _uvicorn(app: str, workers: int) -> tuple[str, ...]:
    command = (sys.executable, "-m", "uvicorn", app, "--port", "{port}", "--no-access-log")
    return (*command, "--workers", str(workers))


def _settings(entry: Entry, workers: int) -> dict[str, str]:
    """Of a peer. Its workers share the cores, as those of imgcls do."""
    threads = str(max(1, usable_cores() // workers))
    return {
        "BENTOML_HOME": str(entry.model.home.with_name("peers")),
        "OMP_NUM_THREADS": threads,
        "PEER_MODEL": str(entry.model.folder / GRAPH_FILE),
        "PEER_NETWORK": entry.network,
        "PEER_SIDE": str(entry.side),
        "PEER_THREADS": threads,
        "PEER_WEIGHTS": str(entry.weights),
        "PEER_WORKERS": str(workers),
    }


def _name(framework: str, workers: int) -> str:
    return framework if workers == 1 else f"{framework}-{workers}"
