"""The models that one worker holds in memory: each loaded once, the least recently used let go.

A model is loaded behind the gate on one thread, however many requests ask for it at once. It stays
for as long as its files are those that passed the gate and the memory budget has room, so that
`set` back and forth between two models loads neither again. Letting a model go breaks no request:
those under way hold it until they are answered.
"""

import asyncio
import contextlib
import os
import resource
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from imgcls.batcher import Batcher
from imgcls.card import CARD_FILE, GOLDEN_DIR, GRAPH_FILE
from imgcls.engine import Engine, gate, release_memory
from imgcls.registry import Registry
from imgcls.settings import Settings

_MB = 1024 * 1024

Identity = tuple[tuple[str, int, int, int], ...]
"""Path, inode, time of change in ns and size of every file that the gate reads."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What has passed the gate."""

    engine: Engine
    files: Identity
    """As they were before the gate read them; the card first."""
    memory: int
    """Bytes, as far as they can be known; see `pass_gate`."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    passed: Passed
    batcher: Batcher


class Sessions:
    """The loaded models of one registry. All methods belong to one event loop.

    `thread` must have a single thread: loads run one after the other, so that what one takes of the
    memory can be measured. `new_batcher` makes the queue of a loaded engine.

    The budget is `settings.model_memory_mb`, the number `settings.max_loaded_models` beside the
    active one. The active model and the one used last always stay, whatever they need, and a model
    that loads is counted when it has loaded.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        thread: Executor,
        new_batcher: Callable[[Engine], Batcher],
    ) -> None:
        self.active: Batcher | None = None
        """Answers plain predictions and is never let go."""
        self.early: Future[Passed] | None = None
        """A loading that began before this object was there."""
        self._registry = registry
        self._settings = settings
        self._thread = thread
        self._new_batcher = new_batcher
        self._models: OrderedDict[str, asyncio.Task[_Loaded]] = OrderedDict()
        self._let_go: list[asyncio.Task[_Loaded]] = []

    def ready(self, tag: str) -> Batcher | None:
        """The model, where it is loaded and still in the store under the same card: one `stat`."""
        task = self._models.get(tag)
        if task is None or not task.done():
            return None
        loaded = task.result()
        if _identity(loaded.passed.engine.folder / CARD_FILE) != loaded.passed.files[:1]:
            return None
        self._models.move_to_end(tag)
        return loaded.batcher

    async def load(self, tag: str) -> Batcher:
        """The model `name:version`, loaded unless it is and none of its files has changed since.

        Raises `ModelNotFound`, `BadModel` or `GateFailed`.
        """
        task = self._models.get(tag)
        if task is None or (task.done() and self._changed(task.result())):
            if task is not None:
                self._let_go.append(task)
            task = self._models[tag] = asyncio.create_task(self._load(tag))
            task.add_done_callback(self._make_room)
        self._models.move_to_end(tag)
        return (await asyncio.shield(task)).batcher

    async def sweep(self) -> None:
        """Free the memory of models that were let go, or have left the store since."""
        for tag, task in list(self._models.items()):
            if task.done() and not self._registry.has(tag) and not self._is_active(task):
                self._let_go.append(self._models.pop(tag))
        if self._let_go:
            # A session's end takes milliseconds, which are not the event loop's to spend.
            await asyncio.get_running_loop().run_in_executor(self._thread, self._free)

    def loaded(self) -> dict[str, int]:
        """Bytes by tag of the models in memory, the least recently used first."""
        return {
            tag: task.result().passed.memory for tag, task in self._models.items() if task.done()
        }

    async def _load(self, tag: str) -> _Loaded:
        try:
            passed = await self._loaded_early(tag)
            if passed is None:
                passed = await asyncio.get_running_loop().run_in_executor(
                    self._thread, pass_gate, self._registry.folder(tag), self._settings.max_batch
                )
            return _Loaded(passed, self._new_batcher(passed.engine))
        except BaseException:
            if self._models.get(tag) is asyncio.current_task():
                del self._models[tag]
            raise

    async def _loaded_early(self, tag: str) -> Passed | None:
        if self.early is not None:
            with contextlib.suppress(Exception):  # it fails again after this, and is reported there
                passed = await asyncio.wrap_future(self.early)
                if passed.engine.card.tag == tag:
                    return passed
        return None

    def _changed(self, loaded: _Loaded) -> bool:
        """Whether other files are there than passed the gate. Raises `ModelNotFound`."""
        return _files(self._registry.folder(loaded.passed.engine.card.tag)) != loaded.passed.files

    def _make_room(self, _: object) -> None:
        """Let go of the least recently used models until the others are within both limits."""
        settings = self._settings
        tags = [tag for tag, task in self._models.items() if task.done()]
        memory = self.loaded()
        for tag in tags[:-1]:
            task = self._models[tag]
            over = sum(memory.values()) > settings.model_memory_mb * _MB
            if self._is_active(task) or not (over or len(memory) > settings.max_loaded_models + 1):
                continue
            del memory[tag]
            self._let_go.append(self._models.pop(tag))

    def _is_active(self, task: "asyncio.Task[_Loaded]") -> bool:
        return self.active is not None and task.result().batcher is self.active

    def _free(self) -> None:
        self._let_go.clear()
        release_memory()


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def pass_gate(folder: Path, max_batch: int) -> Passed:
    """Load and check a model, and measure by how many bytes resident memory grows meanwhile.

    The warm-up at the largest batch fills the session's arena, which for convolutions is many times
    the graph. What requests allocate meanwhile is counted too, and what the allocator had free is
    not; the size of the graph is the least that is believed. Raises `BadModel` or `GateFailed`.
    """
    files, before = _files(folder), resident_bytes()
    engine = gate(folder, max_batch=max_batch)
    grown = resident_bytes() - before
    return Passed(engine, files, max(grown, (folder / GRAPH_FILE).stat().st_size))


def _files(folder: Path) -> Identity:
    goldens = sorted((folder / GOLDEN_DIR).glob("*"))
    return _identity(folder / CARD_FILE, folder / GRAPH_FILE, *goldens)


def _identity(*paths: Path) -> Identity:
    """Of the files that exist."""
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            found.append((str(path), status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
