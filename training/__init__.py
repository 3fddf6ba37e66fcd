"""Training: from labelled images to a registered model. The only package that imports torch.

    seeding, versions -> loader, events -> pixels, augment, networks
                      -> backbones, graphs -> features, reduce, heads -> fit_features
                      -> architectures, objectives, optimizers, checkpoint, loop -> fit_network
                                        -> evaluate, export, fitted    -> fit
    evaluate -> calibrate -> judge; fit, judge -> repeats, report -> run -> __main__
    fit -> trials; space, standings -> study; run, tracking -> search -> __main__

`train` is the way in from Python; `python -m training` the one for jobs and for people. torch is
imported when `train` is first used, not with the package.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.run import train

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from training.run import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
