"""Typed training configurations: what `training/` does, decided before torch is imported.

A recipe is chosen by name, read from YAML, and changed by overrides (`lr=0.01`,
`augment.rotation=15`). Unknown keys are refused by name, so a typing mistake never trains the
wrong model.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from imgcls.errors import BadRecipe

ImageSize = Annotated[int, Field(ge=8, le=1024)]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Augment(_Config):
    """Random changes drawn anew for every image and epoch (torchvision v2).

    What is left null is chosen by the data: photos are shifted (crop 0.125), flipped left to right,
    and in half of the batches mixed (cutmix 0.5); grey images and those under 16 px, symbols more
    often than not, are shifted (crop 0.1) and turned by up to 8 degrees, and never flipped.
    """

    crop: float | None = Field(default=None, ge=0, le=0.9)
    """Largest shift either way as a share of the side, by padding with reflection and cropping back
    to the size; 0 is off."""
    rotation: float | None = Field(default=None, ge=0, le=180)
    """Largest rotation either way, in degrees; 0 is off."""
    horizontal_flip: bool | None = None
    perspective: float | None = Field(default=None, ge=0, le=1)
    """Strength of the perspective distortion; 0 is off."""
    cutmix: float | None = Field(default=None, ge=0, le=1)
    """Share of the batches in which a box of each image is replaced by another image's, and the
    label shared out by area (CutMix, Yun et al. 2019); 0 is off."""


class _Training(_Config):
    seed: int = Field(default=0, ge=0, lt=2**32)
    resize: Literal["stretch", "pad", "crop"] = "stretch"
    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=1, le=65_536)
    lr: float = Field(gt=0, le=100)
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Two classes only: the second class is the verdict when its probability reaches this."""
    int8: float | None = Field(default=None, ge=0, le=1)
    """Also make an 8-bit graph, and keep it where it is quicker and its accuracy on validation
    images is at most this much lower (0.01: one in a hundred); null makes none."""


class LinearProbe(_Training):
    """A frozen backbone, its features computed once, and a linear head on top of them."""

    summary: ClassVar[str] = "frozen backbone + linear head: minutes, needs pretrained weights"

    kind: Literal["linear-probe"] = "linear-probe"
    backbone: str = Field(default="resnet18", pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    """A torchvision classification model, or a timm model, by name."""
    weights: str = "imagenet"
    """`imagenet`, `none`, or the path of a state dict (.pt, .pth, .safetensors)."""
    image_size: ImageSize = 224
    head: Literal["softmax", "sigmoid"] = "softmax"
    """`sigmoid` is one neuron for two classes; `softmax` has an output for each class."""
    C: float = Field(default=1.0, gt=0)
    """Inverse L2 strength, as scikit-learn's: smaller is stronger regularisation."""
    epochs: int = Field(default=50, ge=1, le=10_000)
    batch_size: int = Field(default=128, ge=1, le=65_536)
    lr: float = Field(default=0.01, gt=0, le=100)


class Cnn(_Training):
    """Six convolution blocks and two dense layers, trained from scratch."""

    summary: ClassVar[str] = "six-block CNN from scratch: no weights needed, any size from 8 x 8"

    kind: Literal["cnn"] = "cnn"
    image_size: ImageSize | None = None
    """Side in pixels; None takes the data's own median side, at most 128."""
    augment: Augment = Augment()
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """In the first four blocks."""
    dense_dropout: float = Field(default=0.3, ge=0, lt=1)
    """Between the two dense layers."""
    width: float = Field(default=2.0, gt=0, le=8)
    """Multiplies the channels of the six blocks: 8, 16, 32, 64, 96, 128 at width 1."""
    dense: int = Field(default=512, ge=8, le=8192)
    """Units of the two dense layers."""
    weight_decay: float = Field(default=0.05, ge=0, le=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the probability that is spread over all classes in the training loss."""
    class_weights: bool = True
    """Weigh the loss by inverse class frequency, so that rare classes count."""
    patience: int = Field(default=15, ge=0)
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    epochs: int = Field(default=45, ge=1, le=10_000)
    batch_size: int = Field(default=64, ge=1, le=65_536)
    lr: float = Field(default=0.004, gt=0, le=100)


Recipe = LinearProbe | Cnn
_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])

RECIPES: dict[str, type[LinearProbe] | type[Cnn]] = {"cnn": Cnn, "linear-probe": LinearProbe}
"""Every recipe by name; the first is the default, since it needs nothing to be downloaded."""
DEFAULT_RECIPE = "cnn"
_MAX_OVERRIDES = 100


def parse_recipe(config: dict[str, Any]) -> Recipe:
    """A recipe from a whole configuration; `kind` names it. Raises `BadRecipe`."""
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in RECIPES:
        raise BadRecipe(f"A recipe needs a `kind`, one of: {', '.join(RECIPES)}.")
    try:
        return _ADAPTER.validate_python(config)
    except ValidationError as err:
        faults = [
            _told(RECIPES[kind], fault)
            for fault in err.errors(include_url=False, include_input=False)[:10]
        ]
        raise BadRecipe("The recipe is not valid: " + "; ".join(faults), detail=faults) from err


def _told(kind: type[BaseModel], fault: Any) -> str:
    """A fault for people; an unknown setting with the one that was perhaps meant."""
    path = [str(part) for part in fault["loc"] if part not in RECIPES]
    where = ".".join(path)[:100]
    if fault["type"] != "extra_forbidden":
        return f"{where}: {fault['msg']}"
    fields: list[str] = list(Augment.model_fields if path[:-1] else kind.model_fields)
    near = difflib.get_close_matches(path[-1][:100], fields, 1)
    hint = (
        f"did you mean {'.'.join([*path[:-1], *near])}?"
        if near
        else f"there are: {', '.join(fields)}"
    )
    return f"{where}: there is no such setting; {hint}"


def load_recipe(
    source: str | dict[str, Any] = DEFAULT_RECIPE, overrides: dict[str, Any] | None = None
) -> Recipe:
    """A recipe by name or from a mapping, changed by overrides.

    Override keys may be dotted (`augment.rotation`). Raises `BadRecipe`, naming what is unknown.
    A path is never opened here, since names come from outside: see `read_recipe_file`.
    """
    if isinstance(source, str):
        if source not in RECIPES:
            raise BadRecipe(f"There is no recipe {source[:80]!r}; there are: {', '.join(RECIPES)}.")
        config: dict[str, Any] = {"kind": source}
    else:
        config = dict(source)
    if len(overrides or {}) > _MAX_OVERRIDES:
        raise BadRecipe(f"At most {_MAX_OVERRIDES} overrides are taken; give a whole recipe.")
    for key, value in (overrides or {}).items():
        if (whole := key.partition(".")[0]) != key and whole in (overrides or {}):
            raise BadRecipe(f"Give either {whole[:80]!r} or {key[:80]!r}; one holds the other.")
        if key.count(".") > 1:
            raise BadRecipe(f"There is no setting {key[:80]!r}; `imgcls recipes NAME` shows all.")
        node = config
        *parents, leaf = key.split(".")
        for parent in parents:
            child = node.get(parent)
            node[parent] = dict(child) if isinstance(child, dict) else {}
            node = node[parent]
        node[leaf] = value
    return parse_recipe(config)


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file (`kind: cnn`, then any fields). Raises `BadRecipe`."""
    try:
        loaded = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as err:
        raise BadRecipe(f"The recipe file {path} cannot be read: {err}") from err
    if not isinstance(loaded, dict):
        raise BadRecipe(f"The recipe file {path} must hold a mapping such as `kind: cnn`.")
    return cast(dict[str, Any], loaded)


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` from a command line; the value is YAML (`0.1`, `true`, `null`, `text`)."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise BadRecipe(f"An override is written key=value, for example lr=0.01; got {text!r}.")
    try:
        return key.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        raise BadRecipe(f"The value of {key!r} cannot be read: {err}") from err


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML, ready to be saved, edited and passed back."""
    return yaml.safe_dump({"kind": recipe.kind} | recipe.model_dump(mode="json"), sort_keys=False)
