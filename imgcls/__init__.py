"""imgcls: from a folder of labelled images to a trained, registered, auto-batched endpoint.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgcls.card import ModelCard
    from imgcls.client import Client
    from imgcls.data import open_dataset

    __version__: str

__all__ = ["Client", "ModelCard", "__version__", "open_dataset"]

_HOMES = {
    "Client": "imgcls.client",
    "ModelCard": "imgcls.card",
    "open_dataset": "imgcls.data",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("imgcls")
        except PackageNotFoundError:  # the source alone, as inside a bento
            return "0+source"
    if name not in _HOMES:
        raise AttributeError(f"module 'imgcls' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
