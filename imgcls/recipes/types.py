"""What a recipe can say, part by part.

Two kinds: `FeaturesRecipe` computes features once and fits a head on them; `NetworkRecipe` trains a
network by gradient descent, image by image. Every part has defaults; presets choose others.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ImageSize = Annotated[int, Field(ge=8, le=1024)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
LearningRate = Annotated[float, Field(gt=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


class Part(BaseModel):
    """A part of a recipe: frozen, finite, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# Features.


class BackboneFeatures(Part):
    """The last layer before the classes of a frozen network."""

    kind: Literal["backbone"] = "backbone"
    name: Name = "resnet18"
    """A torchvision classification model, or a timm model."""
    weights: str = "imagenet"
    """`imagenet`, `none`, or the path of a state dict (.pt, .pth, .safetensors)."""


class HogFeatures(Part):
    """Histograms of oriented gradients (Dalal & Triggs 2005), L2-Hys over blocks of cells."""

    kind: Literal["hog"] = "hog"
    channels: Literal["stacked", "strongest", "grey"] = "strongest"
    """`stacked` describes each colour by itself, one after the other; `strongest` takes the
    gradient of the colour in which it is largest, pixel by pixel; `grey` that of the luma."""
    orientations: int = Field(default=9, ge=1, le=36)
    cell: int = Field(default=8, ge=2, le=256)
    """Side of a cell in pixels."""
    block: int = Field(default=2, ge=1, le=8)
    """Side of a block in cells."""


class DenseSiftFeatures(Part):
    """SIFT descriptors (Lowe 2004) on a grid, counted as visual words (Csurka et al. 2004)."""

    kind: Literal["dense-sift"] = "dense-sift"
    words: int = Field(default=256, ge=2, le=4096)
    step: int = Field(default=4, ge=1, le=64)
    """Pixels between descriptors."""
    cell: int = Field(default=4, ge=2, le=64)
    """Side in pixels of each of the 4 x 4 cells of a descriptor."""


class PixelFeatures(Part):
    """The pixels themselves, 0 to 1."""

    kind: Literal["pixels"] = "pixels"


Features = Annotated[
    BackboneFeatures | HogFeatures | DenseSiftFeatures | PixelFeatures,
    Field(discriminator="kind"),
]


class Pca(Part):
    """Principal components of standardised features."""

    kind: Literal["pca"] = "pca"
    variance: float = Field(default=0.95, gt=0, lt=1)
    """Share of the variance that is kept, unless `components` says how many."""
    components: int | None = Field(default=None, ge=1, le=4096)


# Heads.


class LinearHead(Part):
    """Logistic regression by minibatches; for a regression ridge regression."""

    kind: Literal["linear"] = "linear"
    activation: Literal["softmax", "sigmoid"] = "softmax"
    """`sigmoid` is one neuron for two classes; `softmax` has an output for each class."""
    C: float = Field(default=1.0, gt=0)
    """Inverse L2 strength, as scikit-learn's: smaller is stronger regularisation."""
    epochs: Epochs = 50
    batch_size: BatchSize = 128
    lr: LearningRate = 0.01


class SvcHead(Part):
    """Support vectors, with probabilities by Platt's scaling over 5 folds."""

    kind: Literal["svc"] = "svc"
    kernel: Literal["rbf", "linear", "poly", "sigmoid"] = "rbf"
    C: float = Field(default=10.0, gt=0)
    gamma: Literal["scale", "auto"] | Annotated[float, Field(gt=0)] = "scale"
    degree: int = Field(default=3, ge=1, le=10)
    """Of the polynomial kernel."""
    max_images: int = Field(default=5_000, ge=10, le=50_000)
    """Training images that are taken at most, drawn by class: time and memory grow with the square
    of their number (200 MB for 5,000)."""


class RandomForestHead(Part):
    kind: Literal["random-forest"] = "random-forest"
    trees: int = Field(default=300, ge=1, le=10_000)
    depth: int | None = Field(default=None, ge=1, le=64)
    min_leaf: int = Field(default=1, ge=1, le=10_000)


class LightGbmHead(Part):
    kind: Literal["lightgbm"] = "lightgbm"
    trees: int = Field(default=200, ge=1, le=10_000)
    leaves: int = Field(default=31, ge=2, le=4096)
    lr: LearningRate = 0.1
    min_leaf: int = Field(default=20, ge=1, le=10_000)


class CatBoostHead(Part):
    kind: Literal["catboost"] = "catboost"
    trees: int = Field(default=500, ge=1, le=10_000)
    depth: int = Field(default=6, ge=1, le=16)
    lr: LearningRate = 0.1


Head = Annotated[
    LinearHead | SvcHead | RandomForestHead | LightGbmHead | CatBoostHead,
    Field(discriminator="kind"),
]


# Networks.


class CnnNetwork(Part):
    """Six convolution blocks and two dense layers, trained from scratch."""

    kind: Literal["cnn"] = "cnn"
    width: float = Field(default=2.0, gt=0, le=8)
    """Multiplies the channels of the six blocks: 8, 16, 32, 64, 96, 128 at width 1."""
    dense: int = Field(default=512, ge=8, le=8192)
    """Units of the two dense layers."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """In the first four blocks."""
    dense_dropout: float = Field(default=0.3, ge=0, lt=1)
    """Between the two dense layers."""


class Architecture(Part):
    """Any network of torchvision or timm, from scratch or from pretrained weights."""

    kind: Literal["architecture"] = "architecture"
    name: Name = "resnet18"
    weights: str = "imagenet"
    """`imagenet`, `none` (from scratch), or the path of a state dict (.pt, .pth, .safetensors)."""
    train: Literal["whole", "head-first", "head"] = "whole"
    """What learns: all of it from the start, the head alone for `head_epochs` and then all of it,
    or the head alone."""
    head_epochs: int = Field(default=1, ge=1, le=1000)
    """Of `head-first`: epochs in which the body is frozen; they count among `epochs`."""
    body_lr: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of the body as a share of the head's."""
    hidden: int | None = Field(default=None, ge=8, le=8192)
    """Units of a dense layer between body and output; null is none."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Before the output."""


Network = Annotated[CnnNetwork | Architecture, Field(discriminator="kind")]


class Augment(Part):
    """Random changes drawn anew for every image and epoch (torchvision v2).

    What is left null is chosen by the data: photos are shifted (crop 0.125), flipped left to right,
    and in half of the batches mixed (cutmix 0.5); grey images and those under 16 px, symbols more
    often than not, are shifted (crop 0.1) and turned by up to 8 degrees, and never flipped. A
    regression is flipped and shifted only, since mixing has no meaning there.
    """

    crop: float | None = Field(default=None, ge=0, le=0.9)
    """Largest shift either way as a share of the side, by padding with reflection and cropping back
    to the size; 0 is off."""
    rotation: float | None = Field(default=None, ge=0, le=180)
    """Largest rotation either way, in degrees; 0 is off."""
    horizontal_flip: bool | None = None
    vertical_flip: bool | None = None
    contrast: float | None = Field(default=None, ge=0, le=1)
    """Largest change of contrast either way, as a share; 0 is off."""
    perspective: float | None = Field(default=None, ge=0, le=1)
    """Strength of the perspective distortion; 0 is off."""
    mixup: Share | None = None
    """Share of the batches in which images are blended in pairs, and the label shared out (mixup,
    Zhang et al. 2018); 0 is off."""
    cutmix: Share | None = None
    """Share of the batches in which a box of each image is replaced by another image's, and the
    label shared out by area (CutMix, Yun et al. 2019); 0 is off."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if (self.mixup or 0) + (self.cutmix or 0) > 1:
            raise ValueError("mixup and cutmix are shares of the same batches: at most 1 together")
        return self


class Optimizer(Part):
    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: LearningRate | Literal["auto"] = 0.004
    """`auto` runs a learning-rate finder first (Smith 2017)."""
    weight_decay: float = Field(default=0.05, ge=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of `sgd`, with Nesterov's step."""
    accumulate: int = Field(default=1, ge=1, le=1024)
    """Batches whose gradients make one step."""


class Schedule(Part):
    """How the learning rate moves from step to step."""

    name: Literal["one-cycle", "cosine", "exponential", "steps", "constant"] = "one-cycle"
    warm_up: float = Field(default=0.15, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its full height."""
    decay: float = Field(default=0.5, gt=0, le=1)
    """Factor of each epoch (`exponential`) or of each of the `at` (`steps`)."""
    at: tuple[Share, ...] = (0.5, 0.75)
    """Of `steps`: shares of the run at which the rate falls."""


class Loss(Part):
    """Cross-entropy for classes, squared error for a regression."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the probability that is spread over all classes in the training loss."""
    class_weights: bool = True
    """Weigh classes by inverse frequency, so that rare ones count."""
    density_weights: bool = True
    """Of a regression: weigh images by the inverse of the kernel-smoothed density of their targets
    (LDS, Yang et al. 2021, "Delving into Deep Imbalanced Regression")."""


class EarlyStop(Part):
    patience: int = Field(default=15, ge=0)
    """Epochs without a better validation loss before training stops; 0 never stops early."""


# Recipes.


class _Recipe(Part):
    preset: Name | None = None
    """The preset that this began as."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    image_size: ImageSize | None = None
    """Side in pixels; null takes the data's own median side, at most 128."""
    resize: Literal["stretch", "pad", "crop"] = "stretch"
    threshold: Share = 0.5
    """Two classes only: the second class is the verdict when its probability reaches this."""
    calibrate: bool = True
    """Scale the probabilities by one temperature, fitted on validation images (Guo et al. 2017)."""
    abstain_error: Share | None = None
    """Choose a probability below which the model abstains, so that on validation images at most
    this share of what it does answer is wrong; null never abstains."""
    output_range: tuple[float, float] | None = None
    """Of a regression: answers never leave this range; null takes that of the training targets."""
    coverage: float = Field(default=0.9, gt=0.5, lt=1)
    """Of a regression: share of the answers whose prediction interval is to hold the truth."""
    folds: int | None = Field(default=None, ge=2, le=20)
    """Train so many models more, each without one part of the training images, and measure them on
    the part that they have not seen: the mean and the spread are reported."""
    learning_curve: int | None = Field(default=None, ge=2, le=20)
    """Train so many models more, on a tenth to all of the training images, to see what more images
    bring."""
    int8: Share | None = None
    """Also make an 8-bit graph, and keep it where it is quicker and its accuracy on validation
    images is at most this much lower (0.01: one in a hundred); null makes none."""

    @model_validator(mode="after")
    def _range_rises(self) -> Self:
        if self.output_range is not None and not self.output_range[0] < self.output_range[1]:
            raise ValueError("output_range must rise, for example [0, 10]")
        return self


class FeaturesRecipe(_Recipe):
    """Features computed once, perhaps reduced, and a head fitted on them."""

    kind: Literal["features"] = "features"
    features: Features = BackboneFeatures()
    reduce: Pca | None = None
    head: Head = LinearHead()


class NetworkRecipe(_Recipe):
    """A network trained by gradient descent on augmented images."""

    kind: Literal["network"] = "network"
    network: Network = CnnNetwork()
    augment: Augment = Augment()
    epochs: Epochs = 45
    batch_size: BatchSize = 64
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    early_stop: EarlyStop = EarlyStop()
    average: bool = True
    """Validate and keep an exponential moving average of the weights over about an epoch."""
    precision: Literal["auto", "fp32"] = "auto"
    """`auto` trains in mixed precision on a GPU, and in 32 bits on the CPU."""


Recipe = FeaturesRecipe | NetworkRecipe
