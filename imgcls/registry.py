"""The models: BentoML's store, the pointer to the active one, and the history of promotions.

Models are ordinary BentoML models, so `bentoml models list|get|delete` work on them; listing
reads the cards alone and needs no BentoML. A model enters the store by one rename and leaves it by
one, so that no reader meets half a model. Whether a model may become active is decided before
`point`.
"""

import contextlib
import json
import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from imgcls.card import CARD_FILE, ModelCard
from imgcls.errors import BadArgument, BadModel, Conflict, ModelInUse, ModelNotFound
from imgcls.files import (
    Stamp,
    appended,
    check_name,
    locked,
    scratch,
    split_tag,
    stamp,
    write_atomic,
)
from imgcls.settings import bentoml_home, get_settings
from imgcls.shadow_files import ShadowFiles


class ActivePointer(BaseModel):
    """`active.json`: the active model, and those before it, oldest first."""

    schema_version: int = 1
    tag: str | None = None
    previous: list[str] = []


class Registry:
    def __init__(self, home: Path | None = None, store: Path | None = None) -> None:
        self.home = home or get_settings().home
        self.store = store or bentoml_home() / "models"
        self.shadow = ShadowFiles(self.home)
        self._pointer = self.home / "active.json"
        self._promotions = self.home / "promotions.jsonl"

    # Models.

    def new_tag(self, name: str) -> str:
        """A fresh `name:version` that sorts by time. Raises `BadArgument` for a bad name."""
        version = f"{datetime.now(UTC):%Y%m%d%H%M%S}{secrets.token_hex(3)}"
        return f"{check_name(name, 'model name')}:{version}"

    def cards(self, name: str | None = None) -> list[ModelCard]:
        """Cards of all models (of one name), newest first; without a readable card there is none.

        Raises `BadArgument` for what cannot be a name.
        """
        if name is not None:
            check_name(name, "model name")
        cards = []
        for path in self.store.glob(f"*/*/{CARD_FILE}"):
            try:
                card = self._card(path.parent)
            except BadModel:
                continue
            if name is None or card.tag.partition(":")[0] == name:
                cards.append(card)
        return sorted(cards, key=lambda card: card.created_at, reverse=True)

    def get(self, tag: str) -> ModelCard:
        """The card of `name:version`, or of the newest `name`. Raises `ModelNotFound`."""
        return self._card(self.folder(tag))

    def has(self, tag: str) -> bool:
        """Whether exactly this `name:version` is in the store; costs one `stat`."""
        name, version = split_tag(tag)
        return version is not None and (self.store / name / version / CARD_FILE).is_file()

    def folder(self, tag: str) -> Path:
        """Raises `ModelNotFound`."""
        name, version = split_tag(tag)
        if version is None:
            cards = self.cards(name)
            if not cards:
                raise self._not_found(tag)
            version = cards[0].tag.partition(":")[2]
        folder = self.store / name / version
        if not (folder / CARD_FILE).is_file():
            raise self._not_found(tag)
        return folder

    def register(self, folder: Path, card: ModelCard) -> str:
        """Move the files of `folder` (graph, card, goldens) into the store as one model.

        The card is written by this call. Returns the tag. Raises `Conflict` where it exists.
        """
        name, version = split_tag(card.tag)
        if version is None:
            raise BadModel(f"A model is registered under name:version, not {card.tag!r}.")
        card.save(folder)
        _describe(folder, card)
        return self._enter(folder, name, version)

    def remove(self, tag: str, *, force: bool = False) -> str:
        """Delete one model; `force` takes baselines too. Returns its tag.

        Raises `ModelNotFound`, or `ModelInUse` for the active model, the shadow and baselines.
        """
        with locked(self.home / "registry.lock"):
            folder = self.folder(tag)
            tag = f"{folder.parent.name}:{folder.name}"
            if tag == self.active():
                raise ModelInUse(f"{tag} is active: set another model or unset it first.")
            if tag == self.shadow.pointer().tag:
                raise ModelInUse(f"{tag} is the shadow model: stop the shadow first.")
            with contextlib.suppress(BadModel):  # what cannot be read protects nothing
                if self._card(folder).baseline and not force:
                    raise ModelInUse(f"{tag} is a baseline and protected from removal.")
            self._leave(folder)
            return tag

    def remove_all(self, name: str | None = None) -> list[str]:
        """Delete every model (of one name) that is not in use and no baseline; their tags."""
        removed = []
        for card in self.cards(name):
            # Another process may have removed or activated it meanwhile.
            with contextlib.suppress(ModelNotFound, ModelInUse):
                removed.append(self.remove(card.tag))
        return removed

    def export(self, tag: str, target: Path) -> Path:
        """Write the model to a file that `import_` and `bentoml models import` read.

        `target` is a folder or a file name; the ending `.bentomodel` is BentoML's.
        """
        from bentoml._internal.models import ModelStore

        model = ModelStore(self.store).get(self.get(tag).tag)
        # BentoML takes relative paths from the root of the file system.
        return Path(model.export(os.path.abspath(os.path.expanduser(target))))

    def import_(self, source: Path) -> str:
        """Take a file that `export` wrote. The model passes the same gate as any other.

        Raises `BadModel`, `GateFailed`, or `Conflict` where the tag exists.
        """
        from bentoml._internal.models import Model

        from imgcls.engine import gate

        source = Path(os.path.abspath(os.path.expanduser(source)))
        if not source.is_file():
            raise BadModel(f"There is no file {source}; give one that `export` wrote.")
        try:
            model = Model.import_from(str(source))
        except Exception as err:  # BentoML passes on whatever its archive readers raise
            raise BadModel(f"{source} is not an exported model: {err}") from err
        card = gate(Path(model.path)).card
        name, version = split_tag(card.tag)
        if str(model.tag) != card.tag or version is None:
            raise BadModel(f"{source} says two tags: {model.tag} and {card.tag}.")
        return self._enter(Path(model.path), name, version)

    # The active model.

    def active(self) -> str | None:
        """The tag that plain predictions use."""
        return self._read_pointer().tag

    def stamp(self) -> Stamp:
        """Changes whenever the pointer does; costs one `stat`."""
        return stamp(self._pointer)

    def point(self, tag: str) -> Stamp:
        """Make `tag` active, keeping the one before for `rollback`. The gate comes first.

        Returns the stamp of the pointer that this call has written.
        """
        with locked(self.home / "registry.lock"):
            self.folder(tag)
            pointer = self._read_pointer()
            previous = [t for t in pointer.previous if t != tag]
            if pointer.tag not in (None, tag):
                previous.append(str(pointer.tag))
            kept = ActivePointer(tag=tag, previous=previous[-100:])
            return self._write_pointer("set", kept, pointer.tag)

    def before(self) -> str:
        """The tag that `rollback` goes to: the last active one that still exists.

        Raises `Conflict` where there is none.
        """
        for tag in reversed(self._read_pointer().previous):
            try:
                self.folder(tag)
            except (ModelNotFound, BadArgument):
                continue
            return tag
        raise Conflict("There is no earlier model to go back to.")

    def step_back(self, tag: str) -> Stamp:
        """Make `tag`, from `before()`, active again and forget those after it; as `point`."""
        with locked(self.home / "registry.lock"):
            self.folder(tag)
            pointer = self._read_pointer()
            if tag not in pointer.previous:
                raise Conflict(f"{tag} was not active before; use set.")
            cut = len(pointer.previous) - 1 - pointer.previous[::-1].index(tag)
            kept = ActivePointer(tag=tag, previous=pointer.previous[:cut])
            return self._write_pointer("rollback", kept, pointer.tag)

    def unset(self) -> str | None:
        """Leave no model active; returns the one that was. `rollback` brings it back."""
        with locked(self.home / "registry.lock"):
            pointer = self._read_pointer()
            if pointer.tag is not None:
                kept = ActivePointer(previous=[*pointer.previous, pointer.tag][-100:])
                self._write_pointer("unset", kept, pointer.tag)
            return pointer.tag

    def start_shadow(self, tag: str, rate: float) -> None:
        """Let a model that has passed the gate shadow the share `rate` of the active one's answers.

        Raises `ModelNotFound`, or `Conflict` for the active model and for one of another task.
        """
        with locked(self.home / "registry.lock"):
            card, active = self.get(tag), self.active()
            if card.tag == active:
                raise Conflict(f"{card.tag} is active; a shadow is compared with the active model.")
            if active is not None and (task := self.get(active).task) != card.task:
                raise Conflict(
                    f"{card.tag} is a {card.task} and cannot be compared with the active model "
                    f"{active}, a {task}; name a model of the same task."
                )
            self.shadow.start(card.tag, rate)

    def promotions(self) -> list[dict[str, Any]]:
        """Every change of the active model, oldest first: time, action, tag, was.

        Lines that are damaged are passed over.
        """
        try:
            lines = self._promotions.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [promotion for promotion in found if isinstance(promotion, dict)]

    def _read_pointer(self) -> ActivePointer:
        try:
            return ActivePointer.model_validate_json(self._pointer.read_bytes())
        except FileNotFoundError:
            return ActivePointer()
        except ValidationError as err:
            raise Conflict(
                f"{self._pointer.name} is damaged; delete it and set a model again."
            ) from err

    def _write_pointer(self, action: str, pointer: ActivePointer, was: str | None) -> Stamp:
        promotion = {
            "time": datetime.now(UTC).isoformat(),
            "action": action,
            "tag": pointer.tag,
            "was": was,
        }
        # Both are written or neither: what is refused, for a full disk, must not happen later.
        with appended(self._promotions, json.dumps(promotion)):
            write_atomic(self._pointer, pointer.model_dump_json(indent=2))
            return self.stamp()

    # The store's folders.

    def _card(self, folder: Path) -> ModelCard:
        card = ModelCard.load(folder)
        if card.tag != f"{folder.parent.name}:{folder.name}":
            raise BadModel(f"The card in {folder} is that of {card.tag}; the folder was copied.")
        return card

    def _enter(self, folder: Path, name: str, version: str) -> str:
        target = self.store / name / version
        # Readers list everything under the store, so the copy is made beside it.
        self.store.mkdir(parents=True, exist_ok=True)
        with scratch(self.store.parent, ".imgcls-") as work:
            complete = work / version
            shutil.move(str(folder), complete)
            complete.chmod(0o755)
            with locked(self.home / "registry.lock"):
                if target.exists():
                    raise Conflict(f"{name}:{version} is in the store already.")
                target.parent.mkdir(exist_ok=True)
                os.rename(complete, target)
                write_atomic(target.parent / "latest", version)
        return f"{name}:{version}"

    def _leave(self, folder: Path) -> None:
        with scratch(self.store.parent, ".imgcls-") as work:
            os.rename(folder, work / folder.name)
        left = self.cards(folder.parent.name)
        if left:
            write_atomic(folder.parent / "latest", left[0].tag.partition(":")[2])
        elif not any(entry.is_dir() for entry in folder.parent.iterdir()):
            shutil.rmtree(folder.parent)

    def _not_found(self, tag: str) -> ModelNotFound:
        there = [card.tag for card in self.cards()[:5]]
        hint = "The store is empty; train a model first."
        if there:
            hint = f"There are, for example: {', '.join(there)}."
        return ModelNotFound(f"There is no model {tag!r}. {hint}")


def _describe(folder: Path, card: ModelCard) -> None:
    """Write BentoML's `model.yaml`, with labels and metadata for `bentoml models get`."""
    from bentoml._internal.models import Model, ModelContext

    metrics = card.metrics
    metadata: dict[str, Any] = {
        "task": card.task,
        "classes": card.labels,
        "backbone": card.backbone,
        "recipe": card.recipe_name,
        "hyperparameters": card.hyperparameters,
        "metrics": {
            "split": metrics.split,
            "images": metrics.images,
            **metrics.headline(),
        },
        "dataset": card.dataset.model_dump(),
        "input": card.preprocessing.model_dump(),
        "threshold": card.threshold,
        "graph_sha256": card.graph_sha256,
        "versions": card.versions,
        "duration_seconds": card.duration_seconds,
    }
    model = Model.create(
        card.tag,
        module="imgcls",
        api_version="v1",
        signatures={},
        labels={
            "task": card.task,
            "recipe": card.recipe_name,
            "type": "baseline" if card.baseline else "custom",
        },
        metadata=_without_none(metadata),
        context=ModelContext(
            framework_name="onnxruntime",
            framework_versions={"onnxruntime": card.versions.get("onnxruntime", "unknown")},
        ),
    )
    model.flush()  # type: ignore[no-untyped-call]
    shutil.copy(model.path_of("model.yaml"), folder / "model.yaml")


def _without_none(value: Any) -> Any:
    """BentoML's metadata knows no null: leave such entries out."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value if v is not None]
    return value
