"""Client: the HTTP interface as Python methods, with the server's own types and errors.

    with Client("http://127.0.0.1:3000") as client:
        client.predict("cat.jpg").predictions[0].label

A refusal raises the same class as on the server (`imgcls.errors`), found by its `code`. A server
that is not there raises `ConnectionError`, one that does not answer in time `TimeoutError`. Nothing
is tried twice: only the caller knows what may be.
"""

import contextlib
import json
import mimetypes
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar

import httpx
from pydantic import BaseModel

from imgcls.auth import TOKEN
from imgcls.card import ModelCard
from imgcls.errors import BY_CODE, BadArgument, ImgclsError
from imgcls.schemas import (
    ActiveResponse,
    FitResponse,
    Job,
    JobsResponse,
    ListResponse,
    PredictResponse,
    RemoveResponse,
    ShadowReport,
    follow,
)
from imgcls.searches import Leaderboard

if TYPE_CHECKING:
    from imgcls.data import DatasetDiff, DatasetSummary
    from imgcls.data.fix_list import FixRow
    from imgcls.eda import Profile
    from imgcls.findings import Findings, Fixed
    from imgcls.jobs import Tracker

Image: TypeAlias = str | os.PathLike[str] | bytes
"""A path, or the bytes of an encoded image."""
_Model = TypeVar("_Model", bound=BaseModel)
_POLL = 0.5


class Client:
    """One server. Safe to share between threads; close it, or use it in a `with`.

    `timeout` is in seconds, for each wait on the network. `upload`, `eda` and a `fit` that waits
    take as long as their work does. `token` is sent as `Authorization: Bearer`; one that the
    server does not know raises `Unauthorized`, one of too small a role `Forbidden`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:3000",
        *,
        timeout: float = 60.0,
        token: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._slow = httpx.Timeout(timeout, read=None, write=None)
        if token and not re.fullmatch(TOKEN, token):
            raise BadArgument("The token has characters that no token has, perhaps a line's end.")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout, headers=headers)
        except httpx.InvalidURL as err:
            raise BadArgument(f"{url!r} is not an address such as http://127.0.0.1:3000.") from err

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Predictions.

    def predict(
        self,
        images: Image | Sequence[Image],
        *,
        model: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> PredictResponse:
        """Predictions for one image or several, in their order, in one request.

        `model` is a tag; without it the active model answers: a classification with `label` and
        `probabilities`, and `abstained` where it knows abstentions; a regression with `score` and,
        where it has one, `interval`. A single bad image raises its `BadImage`; among several, its
        place carries `error` and `code`.
        """
        batch = [images] if isinstance(images, str | bytes | os.PathLike) else list(images)
        if not batch:
            raise BadArgument("Give at least one image.")
        files = [("images", _part(image, index)) for index, image in enumerate(batch)]
        form = {"model": model, "top_k": top_k, "threshold": threshold}
        return self._form("/predict", PredictResponse, form, files)

    # Data.

    def upload(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        pattern: str | None = None,
        table: str | os.PathLike[str] | None = None,
        target: str | None = None,
        where: str | None = None,
        group: str | None = None,
    ) -> "DatasetSummary":
        """Send a zip or tar, or a folder, to be stored as a dataset.

        Of a folder, its images are packed and sent: nothing hidden, no other files, and no links
        that lead out of it. `name` defaults to that of the file or folder. Where folders do not
        say the labels, a `pattern` of file names or a `table` (CSV) names fields: `target` is to be
        predicted, `where` is a filter, `group` divides the images into groups. Raises
        `BadDataset`, `BadArchive` and what else indexing finds.
        """
        from imgcls.data import DatasetSummary
        from imgcls.data.summary import slug, stem

        source = Path(path).resolve()
        fields = {"pattern": pattern, "target": target, "where": where, "group": group}
        form = {"name": name or slug(stem(source))} | fields
        plain = table is None and not any(fields.values())
        with _packed(source, plain) if source.is_dir() else source.open("rb") as file:
            files: list[Any] = [("archive", ("archive", file, "application/octet-stream"))]
            if table is not None:
                files.append(("table", ("table", Path(table).read_bytes(), "text/csv")))
            return self._form("/upload", DatasetSummary, form, files, slow=True)

    def datasets(self) -> "list[DatasetSummary]":
        """The stored datasets."""
        from imgcls.data import DatasetSummary

        found = self._post("/datasets")["datasets"]
        return [DatasetSummary.model_validate(summary) for summary in found]

    def dataset(self, dataset: str) -> "DatasetSummary":
        """What is stored of one dataset. Raises `DatasetNotFound`."""
        from imgcls.data import DatasetSummary

        return DatasetSummary.model_validate(self._post("/dataset", dataset=dataset))

    def eda(self, dataset: str, *, seed: int = 0) -> "Profile":
        """The profile of a stored dataset; `seed` decides the splits that it does not state.

        Raises `DatasetNotFound`.
        """
        from imgcls.eda import Profile

        return Profile.model_validate(self._post("/eda", slow=True, dataset=dataset, seed=seed))

    def eda_report(self, dataset: str, *, seed: int = 0) -> bytes:
        """The profile, samples and findings of a stored dataset as HTML."""
        return self._send("/eda_report", True, json={"dataset": dataset, "seed": seed}).content

    def samples(
        self,
        dataset: str,
        *,
        label: str | None = None,
        split: str | None = None,
        count: int = 8,
        seed: int = 0,
    ) -> bytes:
        """A contact sheet as PNG: `count` random images of each class (or of `label` alone), or
        of each range of targets. Raises `DatasetNotFound`, `BadArgument`."""
        body = {"dataset": dataset, "label": label, "split": split, "count": count, "seed": seed}
        return self._send("/samples", True, json=body).content

    def findings(self, dataset: str, *, min_confidence: float = 0.0, seed: int = 0) -> "Findings":
        """What is wrong with a stored dataset, the surest first. Raises `DatasetNotFound`."""
        from imgcls.findings import Findings

        body = {"dataset": dataset, "min_confidence": min_confidence, "seed": seed}
        return Findings.model_validate(self._post("/findings", slow=True, **body))

    def fix(
        self,
        dataset: str,
        fixes: "Sequence[FixRow] | None" = None,
        *,
        apply: bool = False,
        min_confidence: float = 0.9,
        seed: int = 0,
    ) -> "Fixed":
        """A new version of a stored dataset by `fixes`; without them, what is proposed, or with
        `apply` a new version by all of that.

        Raises `DatasetNotFound`, or `BadArgument` for fixes that do not fit.
        """
        from imgcls.findings import Fixed

        rows = None if fixes is None else [row.model_dump() for row in fixes]
        body = {"fixes": rows, "apply": apply, "min_confidence": min_confidence, "seed": seed}
        return Fixed.model_validate(self._post("/fix", slow=True, dataset=dataset, **body))

    def diff(self, old: str, new: str, *, seed: int = 0) -> "DatasetDiff":
        """What became of the images between two datasets. Raises `DatasetNotFound`."""
        from imgcls.data import DatasetDiff

        answer = self._post("/diff", slow=True, old=old, new=new, seed=seed)
        return DatasetDiff.model_validate(answer)

    def remove_dataset(self, dataset: str) -> RemoveResponse:
        """Delete a dataset, with the images that were uploaded; other data stays where it is.

        Raises `DatasetNotFound`, or `DatasetInUse` where a job trains on it.
        """
        return RemoveResponse.model_validate(self._post("/remove_dataset", dataset=dataset))

    # Training.

    def fit(
        self,
        dataset: str,
        name: str,
        recipe: str | Mapping[str, Any] = "cnn",
        *,
        group: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        time_limit: float | None = None,
        wait: bool = False,
        baseline: bool = False,
        seed: int = 0,
        track: "Sequence[Tracker]" = (),
    ) -> FitResponse:
        """Start a training job on a stored dataset; the model will be called `name:...`.

        `recipe` is a recipe's name or a whole configuration, `overrides` change it by dotted
        keys; `group` is the one to train on, of a dataset in groups. With `wait` the answer comes
        when the job is over and carries the model's card; a failed training raises its error, one
        past `time_limit` seconds `TimeLimitExceeded`.
        """
        return FitResponse.model_validate(
            self._post(
                "/fit",
                slow=wait,
                dataset=dataset,
                name=name,
                group=group,
                recipe=recipe if isinstance(recipe, str) else dict(recipe),
                overrides=dict(overrides or {}),
                time_limit=time_limit,
                wait=wait,
                baseline=baseline,
                seed=seed,
                track=list(track),
            )
        )

    def search(
        self,
        dataset: str,
        name: str,
        budget: float = 600.0,
        *,
        recipes: Sequence[str] = (),
        trials: int | None = None,
        fresh: bool = False,
        baseline: bool = False,
        seed: int = 0,
        track: "Sequence[Tracker]" = (),
    ) -> Job:
        """Start a search for the best recipe that may take `budget` seconds and so many `trials`.

        `follow` its job.
        What it makes will be called `name:...`. Raises `Conflict` where an earlier search of this
        name was about other data, unless it is to begin `fresh`.
        """
        answer = self._post(
            "/search",
            dataset=dataset,
            name=name,
            budget=budget,
            recipes=list(recipes),
            trials=trials,
            fresh=fresh,
            baseline=baseline,
            seed=seed,
            track=list(track),
        )
        return FitResponse.model_validate(answer).job

    def leaderboard(self, name: str) -> Leaderboard:
        """What a search has found so far. Raises `SearchNotFound`."""
        return Leaderboard.model_validate(self._post("/leaderboard", name=name))

    def follow(self, job_id: str, *, poll: float = _POLL) -> Iterator[Job]:
        """Yield the job whenever it has changed, and last when it is over."""
        return follow(lambda: self.job(job_id), poll)

    def jobs(self) -> "list[Job]":
        """All jobs, newest first."""
        return JobsResponse.model_validate(self._post("/jobs")).jobs

    def job(self, job_id: str) -> Job:
        """Where a job stands. Raises `JobNotFound`."""
        return Job.model_validate(self._post("/job", id=job_id))

    def cancel(self, job_id: str) -> Job:
        """Stop a job. Raises `JobNotFound`, `JobOver`."""
        return Job.model_validate(self._post("/cancel", id=job_id))

    def resume(self, job_id: str) -> Job:
        """Start a job that came to no model again, as a new one, behind its last epoch."""
        return Job.model_validate(self._post("/resume", id=job_id))

    # Models.

    def list(self, name: str | None = None) -> ListResponse:
        """The models (of one name), newest first, and which is active."""
        return ListResponse.model_validate(self._post("/list", name=name))

    def info(self, tag: str) -> ModelCard:
        """The card of a model. Raises `ModelNotFound`."""
        return ModelCard.model_validate(self._post("/info", tag=tag))

    def report(self, tag: str, plot: str | None = None) -> bytes:
        """The report of a model as HTML, or one of its plots as PNG.

        Raises `ModelNotFound`, or `NotFound` with the names of the plots that there are.
        """
        return self._send("/report", False, json={"tag": tag, "plot": plot}).content

    def set(self, tag: str) -> ActiveResponse:
        """Make a model the active one. Raises `ModelNotFound`, `BadModel`, `GateFailed`."""
        return ActiveResponse.model_validate(self._post("/set", tag=tag))

    def rollback(self) -> ActiveResponse:
        """Go back to the model that was active before. Raises `Conflict` where there is none."""
        return ActiveResponse.model_validate(self._post("/rollback"))

    def unset(self) -> ActiveResponse:
        """Leave no model active."""
        return ActiveResponse.model_validate(self._post("/unset"))

    def remove(self, tag: str) -> RemoveResponse:
        """Delete a model. Raises `ModelNotFound`, or `ModelInUse` if it is active or a baseline."""
        return RemoveResponse.model_validate(self._post("/remove", tag=tag))

    def remove_all(self, name: str | None = None) -> RemoveResponse:
        """Delete every model (of one name) that is neither active nor a baseline."""
        return RemoveResponse.model_validate(self._post("/remove_all", name=name))

    def shadow(self, tag: str | None, rate: float = 0.05) -> ShadowReport:
        """Let a model score the share `rate` of the live traffic in silence; None stops it.

        Raises `ModelNotFound`, `BadModel`, `GateFailed`, or `Conflict` for the active model.
        """
        return ShadowReport.model_validate(self._post("/shadow", tag=tag, rate=rate))

    def shadow_report(self) -> ShadowReport:
        """What the shadow model has shown so far."""
        return ShadowReport.model_validate(self._post("/shadow_report"))

    # Health.

    def ready(self) -> bool:
        """Whether the server is up and takes requests; False too where there is none."""
        try:
            return self._http.get("/readyz", timeout=5.0).is_success
        except httpx.TransportError:
            return False

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return once the server is ready. Raises `TimeoutError` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"The server at {self.url} was not ready within {timeout:g} s.")
            time.sleep(0.1)

    # The wire.

    def _post(self, route: str, *, slow: bool = False, **body: Any) -> Any:
        return self._send(route, slow, json=body).json()

    def _form(
        self,
        route: str,
        answer: type[_Model],
        form: Mapping[str, Any],
        files: Sequence[Any],
        *,
        slow: bool = False,
    ) -> _Model:
        data = {key: str(value) for key, value in form.items() if value is not None}
        return answer.model_validate_json(self._send(route, slow, data=data, files=files).content)

    def _send(self, route: str, slow: bool, **content: Any) -> httpx.Response:
        if slow:
            content["timeout"] = self._slow
        try:
            response = self._http.post(route, **content)
        except httpx.TimeoutException as err:
            raise TimeoutError(
                f"The server at {self.url} did not answer {route} in time; "
                "give the client a longer timeout."
            ) from err
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as err:
            raise ConnectionError(
                f"No server answers at {self.url}; start one with `imgcls serve`."
            ) from err
        except httpx.TransportError as err:
            raise ConnectionError(f"The connection to {self.url} broke: {err}") from err
        if not response.is_success:
            raise _refusal(response)
        return response


def _part(image: Image, index: int) -> tuple[str, bytes, str]:
    """One file of a form; the server has no use for its name, which may be no valid text."""
    if isinstance(image, bytes):
        return f"image-{index}", image, "application/octet-stream"
    path = Path(image)
    mime = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"image-{index}", path.read_bytes(), mime


@contextlib.contextmanager
def _packed(folder: Path, plain: bool) -> Iterator[IO[bytes]]:
    """The images that indexing would find under `folder`, in a temporary tar.

    `plain` says that its folders are the labels.
    """
    from imgcls.data.folders import list_folder
    from imgcls.data.layout import arrange

    listing = list_folder(folder)[0]
    listing.check_links()
    entries, metadata = listing.entries, listing.metadata
    locations = [*(entries.locations or ()), *(metadata.locations or ())]
    if plain and not len(metadata):
        arrange(entries.names, listing.others)  # what no dataset can be made of is not sent
    with tempfile.TemporaryFile(suffix=".tar") as file:
        with tarfile.open(
            fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8"
        ) as archive:
            for name, location in sorted(
                zip([*entries.names, *metadata.names], locations, strict=True)
            ):
                with open(os.path.join(os.fsencode(folder), location), "rb") as image:
                    member = tarfile.TarInfo(name)
                    member.size = os.fstat(image.fileno()).st_size
                    archive.addfile(member, image)
        file.seek(0)
        yield file


def _refusal(response: httpx.Response) -> ImgclsError:
    """The exception that the server raised, as far as its answer tells."""
    try:
        body = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = None
    body = body if isinstance(body, dict) else {}
    message = str(body.get("error") or response.text[:300] or response.reason_phrase)
    known = BY_CODE.get(str(body.get("code")))
    if known is None:
        message = f"The server answered {response.status_code}: {message}"
        return ImgclsError(message, detail=body.get("detail"))
    return known(message, detail=body.get("detail"))
