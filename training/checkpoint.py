"""Checkpoints: the whole state of a training after an epoch, from which a killed one goes on."""

import contextlib
import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imgcls.errors import Conflict

CHECKPOINT_FILE = "checkpoint.pt"

_log = logging.getLogger(__name__)


class Checkpoint:
    """One training's file in a folder; every save replaces the last one."""

    def __init__(self, folder: Path, identity: str) -> None:
        """`identity` says what is trained on what: another training's file is refused."""
        self.path = folder / CHECKPOINT_FILE
        self._identity = identity

    def load(self) -> dict[str, Any] | None:
        """What was saved last, on the CPU; None before the first save. Only tensors are read.

        Raises `Conflict` where the file is damaged or another training's.
        """
        try:
            with self.path.open("rb") as file:
                stored = torch.load(file, map_location="cpu", weights_only=True)
            identity, state = stored["identity"], stored["state"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as err:  # torch raises errors of many kinds for damaged files
            raise Conflict(
                f"{self.path} cannot be read as a checkpoint; remove it to begin anew."
            ) from err
        if identity != self._identity:
            raise Conflict(
                f"{self.path} is of another training: the recipe or the data have changed since. "
                "Remove it to begin anew, or give a folder of its own."
            )
        found: dict[str, Any] = state
        return found

    def save(self, state: dict[str, Any]) -> None:
        """A full disk costs the checkpoint, not the training."""
        temporary = self.path.with_suffix(".tmp")
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save({"identity": self._identity, "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except (OSError, RuntimeError) as err:
            _log.warning("No checkpoint was written to %s: %s", self.path, err)
            with contextlib.suppress(OSError):
                temporary.unlink()


def generators() -> dict[str, Any]:
    """The state of every global random generator."""
    legacy = np.random.get_state(legacy=False)
    assert isinstance(legacy, dict)
    state = legacy["state"]
    return {
        "python": random.getstate(),
        "numpy": legacy | {"state": {"key": state["key"].tolist(), "pos": int(state["pos"])}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(state: dict[str, Any]) -> None:
    """Put every global generator where `generators` found it."""
    random.setstate(state["python"])
    legacy = state["numpy"]
    key = np.array(legacy["state"]["key"], np.uint32)
    np.random.set_state(legacy | {"state": legacy["state"] | {"key": key}})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
