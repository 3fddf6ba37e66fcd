"""The named recipes: each a whole configuration, what it is good for and what it costs."""

from dataclasses import dataclass

from imgcls.recipes.types import (
    Architecture,
    Augment,
    BackboneFeatures,
    CatBoostHead,
    CnnNetwork,
    DenseSiftFeatures,
    EarlyStop,
    FeaturesRecipe,
    HogFeatures,
    LightGbmHead,
    LinearHead,
    Loss,
    NetworkRecipe,
    Optimizer,
    Recipe,
    Schedule,
    SvcHead,
)


@dataclass(frozen=True, slots=True)
class Preset:
    summary: str
    """What it does, in a line."""
    good_for: str
    cost: str
    """On two cores, in words; docs/recipes.md has what was measured on some thousand photos."""
    recipe: Recipe
    task: str = "classification"


_HOG = HogFeatures(channels="stacked", orientations=3, cell=10, block=2)

PRESETS: dict[str, Preset] = {
    "cnn": Preset(
        "six-block CNN from scratch with augmentation",
        "any size from 8 x 8; no weights needed; the default",
        "minutes",
        NetworkRecipe(loss=Loss(label_smoothing=0.1)),
    ),
    "linear-probe": Preset(
        "frozen ResNet-18, logistic regression",
        "larger photos, few images",
        "minutes, needs pretrained weights",
        FeaturesRecipe(image_size=224),
    ),
    "real-or-fake": Preset(
        "frozen ResNet-18, one sigmoid neuron, threshold 0.60",
        "two classes of small photos, very many of them",
        "minutes for 100,000 photos, needs pretrained weights",
        FeaturesRecipe(
            image_size=32,
            threshold=0.6,
            features=BackboneFeatures(name="resnet18"),
            head=LinearHead(activation="sigmoid", C=0.1, lr=0.03, batch_size=128, epochs=1),
        ),
    ),
    "hog-svc": Preset(
        "HOG of each colour, support vectors",
        "objects told by shape, a few thousand images",
        "half a minute for a few thousand images; learns from 5,000 at most",
        FeaturesRecipe(image_size=64, resize="pad", features=_HOG, head=SvcHead(C=10)),
    ),
    "hog-catboost": Preset(
        "HOG of each colour, CatBoost",
        "objects told by shape",
        "minutes",
        FeaturesRecipe(
            image_size=64, resize="pad", features=_HOG, head=CatBoostHead(depth=6, lr=0.1)
        ),
    ),
    "hog-lightgbm": Preset(
        "HOG of each colour, LightGBM",
        "objects told by shape; quicker than CatBoost",
        "seconds to minutes",
        FeaturesRecipe(image_size=64, resize="pad", features=_HOG, head=LightGbmHead(leaves=60)),
    ),
    "sift-lightgbm": Preset(
        "dense SIFT, bag of visual words, LightGBM",
        "textures and objects without a fixed place",
        "seconds to minutes",
        FeaturesRecipe(
            image_size=64, resize="pad", features=DenseSiftFeatures(), head=LightGbmHead()
        ),
    ),
    "efficientnet-b0": Preset(
        "EfficientNet-B0, head first, then fine-tuned whole",
        "photos, best accuracy for its size",
        "hours on a CPU, minutes on a GPU; needs pretrained weights",
        NetworkRecipe(
            image_size=224,
            network=Architecture(
                name="efficientnet_b0", train="head-first", hidden=256, dropout=0.3, body_lr=0.1
            ),
            epochs=10,
            batch_size=32,
            optimizer=Optimizer(name="adamw", lr=0.001, weight_decay=0.01),
            schedule=Schedule(name="steps", warm_up=0.05, decay=0.1, at=(0.5, 0.8)),
            loss=Loss(label_smoothing=0.1),
            early_stop=EarlyStop(patience=5),
        ),
    ),
    "resnet50v2": Preset(
        "ResNet-50 V2 from scratch, padded photos, flips, rotation, contrast",
        "many photos and no pretrained weights",
        "hours on a CPU",
        NetworkRecipe(
            image_size=224,
            resize="pad",
            network=Architecture(name="resnetv2_50", weights="none"),
            augment=Augment(
                crop=0,
                horizontal_flip=True,
                vertical_flip=True,
                rotation=72,  # 0.2 of a turn
                contrast=0.1,
                cutmix=0,
                mixup=0,
            ),
            epochs=50,
            batch_size=32,
            optimizer=Optimizer(lr=0.001),
            early_stop=EarlyStop(patience=20),
        ),
    ),
    "cnn6": Preset(
        "six convolutions, two dense layers of 4,096, strong augmentation",
        "drawings and cartoons in many classes, tens of thousands of images",
        "hours on a CPU",
        NetworkRecipe(
            image_size=224,
            network=CnnNetwork(width=1.0, dense=4096, dropout=0.2, dense_dropout=0.0),
            augment=Augment(
                crop=0.2,  # 180 of 224 px
                rotation=45,
                horizontal_flip=True,
                perspective=0.7,
                cutmix=0,
                mixup=0,
            ),
            epochs=15,
            batch_size=128,
            optimizer=Optimizer(name="adam", lr=0.001, weight_decay=0),
            schedule=Schedule(name="exponential", warm_up=0, decay=0.5),
        ),
    ),
    "score": Preset(
        "EfficientNetV2-S regression, weights by label density, 5 folds",
        "a number for each photo, such as a rating",
        "hours on a CPU; needs pretrained weights",
        NetworkRecipe(
            image_size=224,
            network=Architecture(name="efficientnet_v2_s"),
            output_range=(0, 10),
            folds=5,
            epochs=15,
            batch_size=8,
            optimizer=Optimizer(lr=1e-4, weight_decay=0.01),
            schedule=Schedule(name="cosine", warm_up=0.05),
        ),
        task="regression",
    ),
}
"""Every preset by name."""
DEFAULT_RECIPE = "cnn"
"""It needs nothing to be downloaded."""
