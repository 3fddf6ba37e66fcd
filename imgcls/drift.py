"""How far live images lie from those of training, by the model's own embedding.

The score is the mean, over the dimensions of the embedding, of |mean now - mean then| / standard
deviation then: the standardised difference of means (Cohen, Statistical Power Analysis for the
Behavioral Sciences, 1988), by whose convention 0.2 is small, 0.5 medium and 0.8 large. The mean now
is exponentially weighted (EWMA; Roberts, Technometrics 1959). A score says that inputs have
changed, not why: another mix of classes moves it as well as another camera.
"""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Floats = npt.NDArray[np.float32]

REFERENCE_FILE = "reference.json"
MIN_REFERENCE = 50
"""Images that a reference needs. By chance alone the score is about 0.8 * sqrt(1 / n + 1 / 1000)
where `n` made the reference: 0.12 for 50 images, 0.06 for 200."""
MIN_SEEN = 100
"""Live images before there is a score."""
WINDOW = 500
"""Images over which the running mean forgets all but 1/e; it is as steady as a mean of 1000."""
_STILL = 1e-6
"""Dimensions whose deviation is this small a share of the largest one never moved in training."""

logger = logging.getLogger("imgcls.drift")


class Reference(BaseModel):
    """`reference.json`: the embedding of held-out images, dimension by dimension."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    images: int = Field(ge=1)
    mean: list[float] = Field(min_length=1)
    std: list[float] = Field(min_length=1)

    @model_validator(mode="after")
    def _same_length(self) -> "Reference":
        if len(self.mean) != len(self.std):
            raise ValueError("`mean` and `std` must have one value for each dimension")
        return self

    @classmethod
    def of(cls, embedding: Floats) -> "Reference | None":
        """From the embedding `[N, D]` of `N` images; None where they are too few to tell."""
        if len(embedding) < MIN_REFERENCE:
            return None
        wide = embedding.astype(np.float64)
        return cls(
            images=len(embedding),
            mean=[float(f"{value:.6g}") for value in wide.mean(axis=0)],
            std=[float(f"{value:.6g}") for value in wide.std(axis=0)],
        )

    def save(self, folder: Path) -> None:
        (folder / REFERENCE_FILE).write_text(self.model_dump_json())

    @classmethod
    def load(cls, folder: Path) -> "Reference | None":
        """None where the model has none, as older ones; a damaged file is logged."""
        try:
            return cls.model_validate_json((folder / REFERENCE_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as err:
            logger.warning("%s of %s cannot be read: %s", REFERENCE_FILE, folder, err)
            return None


class Drift:
    """Live embeddings against a reference. One thread at a time adds, any may ask."""

    def __init__(self, reference: Reference) -> None:
        std = np.array(reference.std)
        self._moves = std > _STILL * std.max()
        self._then = np.array(reference.mean)
        self._std = std[self._moves]
        self._now = np.zeros_like(self._then)
        self._seen = 0

    def add(self, embedding: Floats) -> None:
        """Take in the embedding `[N, D]` of a batch; one of another `D` is passed over."""
        count = len(embedding)
        if count == 0 or embedding.shape[1:] != self._then.shape:
            return
        self._seen += count
        # The plain mean, until there is more than a window of it.
        weight = max(1 - (1 - 1 / WINDOW) ** count, count / self._seen)
        self._now = self._now + weight * (embedding.mean(axis=0) - self._now)

    def score(self) -> float | None:
        """0 is no difference; None until enough images have been seen."""
        if self._seen < MIN_SEEN or not self._moves.any():
            return None
        return float(np.mean(np.abs((self._now - self._then)[self._moves]) / self._std))
