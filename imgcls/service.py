"""The BentoML service: every route, each a thin method over the modules that do the work.

Served by `bentoml serve` from the checkout's `service.py`, or from anywhere as
`imgcls.service:ImageClassifier`.
"""

import asyncio
import ctypes
import gc
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import bentoml
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import imgcls
from imgcls import logs, report, stored_data
from imgcls.card import ModelCard
from imgcls.data.diff import DatasetDiff
from imgcls.data.fix_list import FixRow
from imgcls.data.labelling import Labelling
from imgcls.data.summary import DatasetSummary
from imgcls.eda import Profile
from imgcls.errors import (
    BadArgument,
    BadRecipe,
    Busy,
    Conflict,
)
from imgcls.files import check_name
from imgcls.findings import Findings, Fixed
from imgcls.guard import guard
from imgcls.hangup import dropped_if_gone
from imgcls.http import (
    bind_endpoints,
    endpoint,
    json_response,
    lean,
    no_such_route,
)
from imgcls.jobs import SEARCH, JobRequest, Jobs, Tracker
from imgcls.monitor import PredictionLog
from imgcls.openapi import document
from imgcls.recipes import Recipe, load_recipe, with_weights
from imgcls.registry import Registry
from imgcls.requests import (
    DatasetRequest,
    DatasetsResponse,
    DiffRequest,
    EdaRequest,
    FindingsRequest,
    FitRequest,
    FixRequest,
    JobRequestById,
    ModelRequest,
    NameFilter,
    Nothing,
    PageAnswer,
    PredictRequest,
    ReportAnswer,
    ReportRequest,
    SamplesAnswer,
    SamplesRequest,
    SearchName,
    SearchRequest,
    ShadowRequest,
    UploadRequest,
)
from imgcls.schemas import (
    ActiveResponse,
    FitResponse,
    Job,
    JobsResponse,
    ListResponse,
    PredictResponse,
    RemoveResponse,
    ShadowReport,
)
from imgcls.searches import Leaderboard, SearchFolder, SearchPlan
from imgcls.settings import get_settings

if TYPE_CHECKING:
    from imgcls.predictor import Predictor
    from imgcls.sessions import Passed
    from imgcls.shadow import Shadow

Result = TypeVar("Result")

CONTEXT = bentoml.Context()
"""What BentoML knows of the request that the current task answers."""


def _load_early() -> "Future[Passed] | None":
    """Begin to load the active model while BentoML still builds its application around it.

    None where this process is not a worker of a server. Whatever fails is left for the start.
    """
    if bentoml.server_context.worker_index is None:
        return None
    from imgcls.metric_files import reserve_room

    reserve_room()  # before BentoML opens a file of its own counts

    def load() -> "Passed":
        from imgcls.sessions import pass_gate

        registry = Registry()
        return pass_gate(registry.folder(registry.active() or ""), get_settings().max_batch)

    thread = ThreadPoolExecutor(1, "early")
    loading = thread.submit(load)
    thread.shutdown(wait=False)
    return loading


_early = _load_early()


async def _openapi(request: Request) -> Response:
    return json_response(document(ImageClassifier, imgcls.__version__))


@guard
@lean
@bentoml.asgi_app(
    Starlette(
        routes=[Route("/docs.json", _openapi)], exception_handlers={HTTPException: no_such_route}
    )
)
@bentoml.service(
    name="imgcls",
    workers=get_settings().workers,
    logging={"access": {"enabled": False}},
)
class ImageClassifier:
    """Predictions from the active model, and everything needed to replace it."""

    predictor: "Predictor"
    shadow: "Shadow"

    def __init__(self) -> None:
        self.registry = Registry()
        self.jobs = Jobs()

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start(self) -> None:
        # BentoML's supervisor loads this module too, and it predicts nothing: it goes without
        # NumPy, Pillow and ONNX Runtime, a third of a second of every start.
        from imgcls.predictor import Predictor
        from imgcls.shadow import Shadow

        logs.configure(get_settings().log_format)
        _end_with_parent()
        _allow_connections()
        self.predictions = PredictionLog(get_settings().monitor_rate)
        self.predictor = Predictor(self.registry)
        await self.predictor.start(_early)
        self.shadow = Shadow(self.registry)
        self.shadow.start()
        bind_endpoints(self)
        # What lives now lives for good: the collector need not look at it again.
        gc.collect()
        gc.freeze()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop(self) -> None:
        await self.predictor.stop()
        self.predictions.close()
        self.shadow.close()

    async def __is_ready__(self) -> bool:
        """What `/readyz` asks, by BentoML's name for it."""
        return await self.predictor.ready()

    # Predictions.

    @endpoint("/predict", PredictRequest, PredictResponse, role="predict")
    async def predict(
        self,
        images: list[UploadFile],
        model: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> dict[str, Any]:
        """Classify or score one or more images with the active model, or with `model`."""
        hangup = dropped_if_gone(CONTEXT.request.receive)
        size = sum(image.size or 0 for image in images)
        with hangup, self.predictor.admitted(len(images), size):
            files = [await image.read() for image in images]
            answer = await self.predictor.predict(
                files, model=model, top_k=top_k, threshold=threshold
            )
        logs.note(model=answer["model"], images=len(files))
        self.predictions.offer(files, answer)
        if model is None and threshold is None:
            self.shadow.offer(files, answer)
        return answer

    # Data.

    @endpoint("/upload", UploadRequest, DatasetSummary, role="manage")
    async def upload(
        self,
        archive: list[UploadFile],
        name: str,
        table: list[UploadFile],
        pattern: str | None,
        target: str | None,
        where: str | None,
        group: str | None,
    ) -> DatasetSummary:
        """Store a zip or tar of images as a dataset; its version is its content's hash.

        Class folders say the labels, or a pattern or table says labels or targets.
        """
        check_name(name, "dataset name")
        if len(archive) != 1 or len(table) > 1:
            raise BadArgument(
                "Send exactly one file in the form field `archive`, and at most one in `table`."
            )
        labelling = Labelling(pattern=pattern, target=target, where=where, group=group)
        return await heavily(
            stored_data.store_upload, archive[0], name, labelling, next(iter(table), None)
        )

    @endpoint("/datasets", Nothing, DatasetsResponse, role="manage")
    async def datasets(self) -> DatasetsResponse:
        """All stored datasets, newest first."""
        return DatasetsResponse(datasets=await in_thread(lambda: stored_data.stored().list()))

    @endpoint("/dataset", DatasetRequest, DatasetSummary, role="manage")
    async def dataset(self, dataset: str) -> DatasetSummary:
        """What is stored of one dataset."""
        return await in_thread(lambda: stored_data.stored().get(dataset))

    @endpoint("/eda", EdaRequest, Profile, role="manage")
    async def eda(self, dataset: str, seed: int) -> Profile:
        """The profile of a dataset: counts, sizes, colours, formats, duplicates, bad files."""
        return await heavily(stored_data.profiled, dataset, seed)

    @endpoint("/eda_report", EdaRequest, PageAnswer, role="manage")
    async def eda_report(self, dataset: str, seed: int) -> Response:
        """The profile, samples of each class and all findings as one page of HTML."""
        return await heavily(stored_data.page, dataset, seed)

    @endpoint("/samples", SamplesRequest, SamplesAnswer, role="manage")
    async def samples(
        self, dataset: str, label: str | None, split: str | None, count: int, seed: int
    ) -> Response:
        """A contact sheet: random images of each class, or range of targets, as one PNG."""
        return await heavily(stored_data.samples, dataset, label, split, count, seed)

    @endpoint("/findings", FindingsRequest, Findings, role="manage")
    async def findings(self, dataset: str, min_confidence: float, seed: int) -> Findings:
        """Faults: copies, leaks, contradicting labels, classes that are one, bad and odd files."""
        return await heavily(stored_data.findings, dataset, min_confidence, seed)

    @endpoint("/fix", FixRequest, Fixed, role="manage")
    async def fix(
        self,
        dataset: str,
        fixes: Sequence[FixRow] | None,
        apply: bool,
        min_confidence: float,
        seed: int,
    ) -> Fixed:
        """Make a new version of a dataset by a list of fixes; without one, propose or apply it."""
        return await heavily(stored_data.fix, dataset, fixes, apply, min_confidence, seed)

    @endpoint("/diff", DiffRequest, DatasetDiff, role="manage")
    async def diff(self, old: str, new: str, seed: int) -> DatasetDiff:
        """Which images came, went, or changed label, split, name or content between versions."""
        return await heavily(stored_data.diff, old, new, seed)

    @endpoint("/remove_dataset", DatasetRequest, RemoveResponse, role="manage")
    async def remove_dataset(self, dataset: str) -> RemoveResponse:
        """Delete a dataset, with the images that were uploaded; one that a job uses is refused."""
        return await heavily(stored_data.remove, self.jobs, dataset)

    # Training.

    @endpoint("/fit", FitRequest, FitResponse, role="manage")
    async def fit(
        self,
        dataset: str,
        name: str,
        group: str | None,
        recipe: str | dict[str, Any],
        overrides: dict[str, Any],
        time_limit: float | None,
        wait: bool,
        baseline: bool,
        seed: int,
        track: Sequence[Tracker],
    ) -> FitResponse:
        """Train a model in a process of its own; follow it with `/job`, or `wait` for it."""
        check_name(name, "model name")
        checked = _checked_recipe(load_recipe(recipe, overrides))
        request = JobRequest(
            dataset=await heavily(stored_data.trainable, dataset, seed, group),
            group=group,
            recipe=checked.model_dump(mode="json"),
            name=name,
            time_limit=time_limit,
            baseline=baseline,
            seed=seed,
            track=tuple(track),
        )
        job = await in_thread(self.jobs.start, request)
        if not wait:
            return FitResponse(job=job)
        while not job.over:
            await asyncio.sleep(0.2)
            job = await in_thread(self.jobs.get, job.id)
        if job.tag is None:
            raise job.failure()
        return FitResponse(job=job, card=self.registry.get(job.tag))

    @endpoint("/search", SearchRequest, FitResponse, role="manage")
    async def search(
        self,
        dataset: str,
        name: str,
        budget: float,
        recipes: Sequence[str],
        trials: int | None,
        fresh: bool,
        baseline: bool,
        seed: int,
        track: Sequence[Tracker],
    ) -> FitResponse:
        """Look for the best recipe in a process of its own; follow it with `/job`."""
        folder = SearchFolder(name)
        plan = SearchPlan(budget=budget, recipes=tuple(recipes), trials=trials, fresh=fresh)
        tag = await heavily(stored_data.trainable, dataset, seed, None)
        await in_thread(folder.check, plan, tag, seed)
        request = JobRequest(
            dataset=tag,
            recipe=SEARCH,
            name=name,
            baseline=baseline,
            seed=seed,
            search=plan,
            track=tuple(track),
        )
        return FitResponse(job=await in_thread(self.jobs.start, request))

    @endpoint("/leaderboard", SearchName, Leaderboard, role="manage")
    async def leaderboard(self, name: str) -> Leaderboard:
        """What a search has found so far, with intervals that say which differences are noise."""
        return await in_thread(SearchFolder(name).leaderboard)

    @endpoint("/jobs", Nothing, JobsResponse, role="manage")
    async def list_jobs(self) -> JobsResponse:
        """All training jobs, newest first."""
        return JobsResponse(jobs=await in_thread(self.jobs.all))

    @endpoint("/job", JobRequestById, Job, role="manage")
    async def job(self, id: str) -> Job:
        """State, stage, epoch, metrics so far and the time left of one job."""
        return await in_thread(self.jobs.get, id)

    @endpoint("/cancel", JobRequestById, Job, role="manage")
    async def cancel(self, id: str) -> Job:
        """Stop a job that waits or runs; answers when its process is gone."""
        return await in_thread(self.jobs.cancel, id)

    @endpoint("/resume", JobRequestById, Job, role="manage")
    async def resume(self, id: str) -> Job:
        """Start a job that was killed, failed or was cancelled again, behind its last epoch."""
        return await in_thread(self.jobs.resume, id)

    # Models.

    @endpoint("/list", NameFilter, ListResponse, role="predict")
    async def list(self, name: str | None) -> ListResponse:
        """All models, newest first, with hyperparameters and metrics."""
        return await in_thread(self._list, name)

    @endpoint("/info", ModelRequest, ModelCard, role="predict")
    async def info(self, tag: str) -> ModelCard:
        """The whole card of one model."""
        return await in_thread(self.registry.get, tag)

    @endpoint("/report", ReportRequest, ReportAnswer, role="manage")
    async def report(self, tag: str, plot: str | None) -> Response:
        """What a model reaches, as one page of HTML; or one plot of it, as a PNG."""
        return await in_thread(_report, self.registry, tag, plot)

    @endpoint("/set", ModelRequest, ActiveResponse, role="manage")
    async def set(self, tag: str) -> ActiveResponse:
        """Make a model active, once it has loaded and answered its golden images rightly."""
        was = self.registry.active()
        await self.predictor.set(tag)
        return ActiveResponse(active=self.registry.active(), previous=was)

    @endpoint("/rollback", Nothing, ActiveResponse, role="manage")
    async def rollback(self) -> ActiveResponse:
        """Make the model active that was active before; the same checks apply."""
        was = self.registry.active()
        await self.predictor.rollback()
        return ActiveResponse(active=self.registry.active(), previous=was)

    @endpoint("/unset", Nothing, ActiveResponse, role="manage")
    async def unset(self) -> ActiveResponse:
        """Leave no model active; `/rollback` brings the last one back."""
        return ActiveResponse(active=None, previous=await self.predictor.unset())

    @endpoint("/remove", ModelRequest, RemoveResponse, role="manage")
    async def remove(self, tag: str) -> RemoveResponse:
        """Delete a model; the active one and baselines are refused."""
        return await in_thread(lambda: _removed(self.registry, [self.registry.remove(tag)]))

    @endpoint("/remove_all", NameFilter, RemoveResponse, role="manage")
    async def remove_all(self, name: str | None) -> RemoveResponse:
        """Delete all models but the active one and baselines."""
        return await in_thread(lambda: _removed(self.registry, self.registry.remove_all(name)))

    @endpoint("/shadow", ShadowRequest, ShadowReport, role="manage")
    async def set_shadow(self, tag: str | None, rate: float) -> ShadowReport:
        """Let a model score a share of the live traffic in silence; `tag` null stops that."""
        return await in_thread(_shadow, self.registry, tag, rate)

    @endpoint("/shadow_report", Nothing, ShadowReport, role="manage")
    async def shadow_report(self) -> ShadowReport:
        """What the shadow model has shown: counts of all workers, the newest disagreements."""
        return await in_thread(self.registry.shadow.report)

    def _list(self, name: str | None) -> ListResponse:
        try:
            active = self.registry.active()
        except Conflict:  # the pointer is damaged; what was loaded before goes on answering
            active = self.predictor.active
        return ListResponse.of(self.registry.cards(name), active)


_heavy = ThreadPoolExecutor(2, "heavy")
"""Reads whole datasets; quick questions must not wait behind it."""
_heavy_limit = asyncio.Semaphore(8)
_OPEN_FILES = 65_536
_PR_SET_PDEATHSIG = 1


async def heavily(function: Callable[..., Result], *args: Any) -> Result:
    """In one of few threads. Raises `Busy` where too many wait for them already."""
    if _heavy_limit.locked():
        raise Busy("Many datasets are being read already; try again later.")
    async with _heavy_limit:
        return await asyncio.get_running_loop().run_in_executor(_heavy, function, *args)


async def in_thread(function: Callable[..., Result], *args: Any) -> Result:
    return await asyncio.to_thread(function, *args)


def _end_with_parent() -> None:
    """Under `imgcls serve`, a worker whose parent is killed ends as if it had been asked to.

    It would hold the port, and nobody would replace it. Elsewhere than on Linux it lives on.
    """
    supervisor = os.environ.get("IMGCLS_SUPERVISOR")
    if supervisor is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):  # it has died already
        os.kill(os.getpid(), signal.SIGTERM)


def _allow_connections() -> None:
    """Let this process hold more connections than the usual 1,024 open files.

    A worker that has no file left to open takes no new connection, however idle the others are.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _report(registry: Registry, tag: str, plot: str | None) -> Response:
    folder = registry.folder(tag)
    card = registry.get(tag)
    if plot is None:
        return Response(report.page(folder, card), media_type="text/html")
    return Response(report.plot(folder, card, plot), media_type="image/png")


def _shadow(registry: Registry, tag: str | None, rate: float) -> ShadowReport:
    if tag is None:
        registry.shadow.stop()
    else:
        from imgcls.engine import gate

        registry.start_shadow(gate(registry.folder(tag), threads=1).card.tag, rate)
    return registry.shadow.report()


def _removed(registry: Registry, tags: list[str]) -> RemoveResponse:
    return RemoveResponse(removed=tags, left=[card.tag for card in registry.cards()])


def _checked_recipe(recipe: Recipe) -> Recipe:
    """Over HTTP, weights come from the folder kept for them, not from any path on the server."""
    folder = (get_settings().home / "weights").resolve()

    def found(weights: str) -> Path:
        plain = re.fullmatch(r"[A-Za-z0-9._-]{1,200}", weights)
        path = (folder / weights).resolve() if plain else folder
        if folder not in path.parents or not path.is_file():
            raise BadRecipe(
                "`weights` must be `imagenet`, `none`, or the name of a file that lies in the "
                "server's folder $IMGCLS_HOME/weights."
            )
        return path

    return with_weights(recipe, found)
