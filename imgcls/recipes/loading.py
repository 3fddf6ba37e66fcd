"""Names, mappings, overrides and YAML to a recipe, and back to YAML."""

import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from imgcls.errors import BadRecipe
from imgcls.recipes.presets import DEFAULT_RECIPE, PRESETS
from imgcls.recipes.types import FeaturesRecipe, NetworkRecipe, Recipe

_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])
_KINDS: dict[str, type[BaseModel]] = {"features": FeaturesRecipe, "network": NetworkRecipe}
_MAX_OVERRIDES = 100
_FAULTS = 10
PRETRAINED = ("imagenet", "none")
"""What `weights` may say besides the path of a file."""


def load_recipe(
    source: str | Mapping[str, Any] = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe by its preset's name or from a mapping, changed by overrides.

    A mapping with `preset` changes that preset, part by part; one without is a whole recipe and
    says its `kind`. Override keys may be dotted (`head.C`). Another `kind` of a part begins with
    that kind's defaults. Raises `BadRecipe`, naming what is unknown. A path is never opened here,
    since names come from outside: see `read_recipe_file`.
    """
    config: Mapping[str, Any] = {"preset": source} if isinstance(source, str) else source
    changes = _nested(overrides or {})
    if (preset := changes.pop("preset", config.get("preset"))) is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise BadRecipe(
                f"There is no recipe {str(preset)[:80]!r}; there are: {', '.join(PRESETS)}."
            )
        base = PRESETS[preset].recipe.model_dump(mode="json") | {"preset": preset}
        if config.get("kind", base["kind"]) != base["kind"]:
            raise BadRecipe(f"The preset {preset} is of kind {base['kind']}; leave `kind` out.")
        config = _merged(base, config)
    return _parse(_merged(config, changes))


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file (`preset: cnn`, then any fields). Raises `BadRecipe`."""
    try:
        loaded = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as err:
        raise BadRecipe(f"The recipe file {path} cannot be read: {err}") from err
    if not isinstance(loaded, dict):
        raise BadRecipe(f"The recipe file {path} must hold a mapping such as `preset: cnn`.")
    return cast(dict[str, Any], loaded)


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` from a command line; the value is YAML (`0.1`, `true`, `null`, `text`)."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise BadRecipe(f"An override is written key=value, for example epochs=20; got {text!r}.")
    try:
        return key.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        raise BadRecipe(f"The value of {key!r} cannot be read: {err}") from err


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML, ready to be saved, edited and passed back."""
    shown = recipe.model_dump(mode="json")
    first = {key: shown.pop(key) for key in ("preset", "kind")}
    return yaml.safe_dump(
        {k: v for k, v in first.items() if v is not None} | shown, sort_keys=False
    )


def with_weights(recipe: Recipe, found: typing.Callable[[str], Path]) -> Recipe:
    """The recipe with its `weights`, where they name a file, replaced by the path `found` gives."""
    where = "features" if isinstance(recipe, FeaturesRecipe) else "network"
    part = getattr(recipe, where)
    weights = getattr(part, "weights", "none")
    if weights in PRETRAINED:
        return recipe
    changed = part.model_copy(update={"weights": str(found(weights))})
    return recipe.model_copy(update={where: changed})


def _parse(config: Mapping[str, Any]) -> Recipe:
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadRecipe(
            f"A recipe needs a `preset`, one of: {', '.join(PRESETS)}; or a `kind`: "
            f"{', '.join(_KINDS)}."
        )
    try:
        return _ADAPTER.validate_python(config)
    except ValidationError as err:
        faults = [
            _told(fault) for fault in err.errors(include_url=False, include_input=False)[:_FAULTS]
        ]
        raise BadRecipe("The recipe is not valid: " + "; ".join(faults), detail=faults) from err


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as mappings in mappings."""
    if len(overrides) > _MAX_OVERRIDES:
        raise BadRecipe(f"At most {_MAX_OVERRIDES} overrides are taken; give a whole recipe.")
    changes: dict[str, Any] = {}
    for key, value in overrides.items():
        whole, dot, leaf = key.partition(".")
        if dot and whole in overrides:
            raise BadRecipe(f"Give either {whole[:80]!r} or {key[:80]!r}; one holds the other.")
        if "." in leaf or (dot and not leaf):
            raise BadRecipe(f"There is no setting {key[:80]!r}; `imgcls recipes NAME` shows all.")
        if dot:
            changes.setdefault(whole, {})[leaf] = value
        else:
            changes[key] = value
    return changes


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, parts setting by setting unless their `kind` changes."""
    merged = dict(base)
    for key, value in changes.items():
        part = merged.get(key)
        if isinstance(part, Mapping) and isinstance(value, Mapping):
            same = value.get("kind", part.get("kind")) == part.get("kind")
            merged[key] = {**part, **value} if same else dict(value)
        else:
            merged[key] = value
    return merged


def _told(fault: Any) -> str:
    """A fault for people; an unknown setting with the one that was perhaps meant."""
    kind, *path = map(str, fault["loc"])
    model: Any = _KINDS.get(kind)
    shown: list[str] = []
    for part in path:
        variants = _models(model)
        for variant in variants:
            if part in variant.model_fields:
                shown.append(part)
                model = variant.model_fields[part].annotation
                break
        else:
            # The kind of a part, which its position names already; or what is not there.
            chosen = [v for v in variants if _kind_of(v) == part]
            if chosen:
                model = chosen[0]
            elif part.isdigit() or fault["type"] == "extra_forbidden":
                shown.append(part)
    where = ".".join(shown)[:100]
    if fault["type"] != "extra_forbidden":
        told = str(fault["msg"]).removeprefix("Value error, ")
        return f"{where}: {told}" if where else told
    fields = _fields(model)
    near = difflib.get_close_matches(shown[-1][:100], fields, 1)
    inside = [f for f in fields if shown[-1] in _fields(_field(model, f))]
    hint = (
        f"did you mean {'.'.join([*shown[:-1], *near])}?"
        if near
        else f"did you mean {inside[0]}.{shown[-1]}?"
        if inside
        else f"there are: {', '.join(fields)}"
    )
    return f"{where}: there is no such setting; {hint}"


def _fields(annotation: Any) -> list[str]:
    return list(dict.fromkeys(f for model in _models(annotation) for f in model.model_fields))


def _field(annotation: Any, name: str) -> Any:
    models = [model for model in _models(annotation) if name in model.model_fields]
    return models[0].model_fields[name].annotation if models else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's annotation allows."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _kind_of(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else str(field.default)
