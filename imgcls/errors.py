"""Every way imgcls refuses, in one place.

Each class carries the HTTP status it becomes and a stable `code` that clients may match on.
The message is a sentence that says what was wrong and what to do next.

    ImgclsError                 500 internal
    ├── BadArgument             400 bad_argument
    │   ├── BadImage            400 bad_image
    │   │   ├── EmptyImage      400 empty_image
    │   │   ├── UnsupportedImage 400 unsupported_image
    │   │   ├── BrokenImage     400 broken_image
    │   │   └── ImageTooLarge   400 image_too_large
    │   ├── BadDataset          400 bad_dataset
    │   │   └── BadArchive      400 bad_archive
    │   ├── BadRecipe           400 bad_recipe
    │   └── BadModel            400 bad_model
    ├── Unauthorized            401 unauthorized
    ├── Forbidden               403 forbidden
    │   └── CrossSite           403 cross_site
    ├── NotFound                404 not_found
    │   ├── ModelNotFound       404 model_not_found
    │   ├── DatasetNotFound     404 dataset_not_found
    │   ├── JobNotFound         404 job_not_found
    │   └── SearchNotFound      404 search_not_found
    ├── MethodNotAllowed        405 method_not_allowed
    ├── TimeLimitExceeded       408 time_limit
    ├── BodyStalled             408 body_stalled
    ├── Conflict                409 conflict
    │   ├── NoActiveModel       409 no_active_model
    │   ├── ModelInUse          409 model_in_use
    │   ├── DatasetInUse        409 dataset_in_use
    │   ├── GateFailed          409 gate_failed
    │   └── JobOver             409 job_over
    ├── TooLarge                413 too_large
    ├── UnsupportedMediaType    415 unsupported_media_type
    ├── TrainingFailed          422 training_failed
    │   ├── WeightsUnavailable  422 weights_unavailable
    │   └── ParityFailed        422 parity_failed
    ├── Busy                    429 busy
    ├── Overloaded              503 overloaded
    └── StorageUnavailable      503 storage_unavailable
"""

import errno
import os
import re
from typing import Any, ClassVar

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV}
"""No file is there any more, or something else in its place."""
_OF_THE_MOMENT = re.compile(r"\.(tmp|pass|upload)-.*|\..+-\w{8}")
"""Names that imgcls itself gives to work in progress."""


class ImgclsError(Exception):
    """Base of all errors that imgcls raises on purpose."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after: ClassVar[int | None] = None
    """Seconds after which the same request may succeed; sent as `Retry-After`."""

    def __init__(self, message: str, *, detail: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail

    def to_dict(self) -> dict[str, Any]:
        """The JSON body of a refusal: `{"error", "code"}` and `"detail"` where there is one."""
        body: dict[str, Any] = {"error": self.message, "code": self.code}
        if self.detail is not None:
            body["detail"] = self.detail
        return body


class BadArgument(ImgclsError):
    status, code = 400, "bad_argument"


class BadImage(BadArgument):
    code = "bad_image"


class EmptyImage(BadImage):
    code = "empty_image"


class UnsupportedImage(BadImage):
    code = "unsupported_image"


class BrokenImage(BadImage):
    code = "broken_image"


class ImageTooLarge(BadImage):
    code = "image_too_large"


class BadDataset(BadArgument):
    code = "bad_dataset"


class BadArchive(BadDataset):
    code = "bad_archive"


class BadRecipe(BadArgument):
    code = "bad_recipe"


class BadModel(BadArgument):
    code = "bad_model"


class Unauthorized(ImgclsError):
    status, code = 401, "unauthorized"


class Forbidden(ImgclsError):
    status, code = 403, "forbidden"


class CrossSite(Forbidden):
    code = "cross_site"


class NotFound(ImgclsError):
    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class DatasetNotFound(NotFound):
    code = "dataset_not_found"


class JobNotFound(NotFound):
    code = "job_not_found"


class SearchNotFound(NotFound):
    code = "search_not_found"


class MethodNotAllowed(ImgclsError):
    status, code = 405, "method_not_allowed"


class TimeLimitExceeded(ImgclsError):
    status, code = 408, "time_limit"


class BodyStalled(ImgclsError):
    status, code = 408, "body_stalled"


class Conflict(ImgclsError):
    status, code = 409, "conflict"


class NoActiveModel(Conflict):
    code = "no_active_model"


class ModelInUse(Conflict):
    code = "model_in_use"


class DatasetInUse(Conflict):
    code = "dataset_in_use"


class GateFailed(Conflict):
    code = "gate_failed"


class JobOver(Conflict):
    code = "job_over"


class TooLarge(ImgclsError):
    status, code = 413, "too_large"


class UnsupportedMediaType(ImgclsError):
    status, code = 415, "unsupported_media_type"


class TrainingFailed(ImgclsError):
    status, code = 422, "training_failed"


class WeightsUnavailable(TrainingFailed):
    code = "weights_unavailable"


class ParityFailed(TrainingFailed):
    code = "parity_failed"


class Busy(ImgclsError):
    status, code = 429, "busy"
    retry_after = 1


class Overloaded(ImgclsError):
    status, code = 503, "overloaded"
    retry_after = 1


class StorageUnavailable(ImgclsError):
    status, code = 503, "storage_unavailable"


def out_of_reach(what: object, err: OSError) -> ImgclsError:
    """The refusal where something is there and cannot be read: `BadDataset` where that is not
    allowed, else `StorageUnavailable`."""
    if err.errno in FORBIDDEN:
        return BadDataset(f"{what} may not be read; allow it, or take it away, and try again.")
    return StorageUnavailable(f"{what} cannot be read ({err.strerror}); try again.")


def of_system(err: OSError | MemoryError) -> ImgclsError:
    """What the system refused, and what to do about it."""
    if isinstance(err, MemoryError):
        return ImgclsError(
            "There is too little memory; free some, or lower IMGCLS_MAX_IMAGE_PIXELS."
        )
    where = err.filename2 or err.filename
    where = os.fsdecode(where) if isinstance(where, (str, bytes, os.PathLike)) else ""
    folder, name = os.path.split(where)
    if _OF_THE_MOMENT.fullmatch(name):
        where = folder or "the folder around you"
    where = where.removesuffix(".part")
    if err.errno in DISK_FULL:
        return StorageUnavailable(
            f"A disk is full{where and f', the one of {where}'}: free some room, or let "
            "IMGCLS_HOME and BENTOML_HOME name folders on another one."
        )
    if err.errno in FORBIDDEN:
        return StorageUnavailable(
            f"{where or 'Something'} is not to be had ({err.strerror}); allow it, or choose "
            "another place."
        )
    return StorageUnavailable(str(err))


def _tree(cls: type[ImgclsError]) -> dict[str, type[ImgclsError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found.update(_tree(sub))
    return found


BY_CODE = _tree(ImgclsError)
"""Error class by its `code`: how the client turns a response back into the same exception."""
