"""What `bentoml serve` loads: the service, by name."""

from imgcls.service import ImageClassifier

__all__ = ["ImageClassifier"]
