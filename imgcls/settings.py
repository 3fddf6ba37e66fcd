"""Settings of the running process: read from `IMGCLS_*` once, typed, frozen.

Precedence: environment variable, then the default written here. A value that cannot be cast
stops the process with the name of the variable.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def bentoml_home() -> Path:
    """BentoML's home, found as BentoML finds it (`BENTOML_HOME`, else `~/bentoml`)."""
    return Path(os.path.expanduser(os.environ.get("BENTOML_HOME") or "~/bentoml"))


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="IMGCLS_", frozen=True)

    home: Path = Field(default_factory=lambda: bentoml_home() / "imgcls")
    """Datasets, jobs, caches and the active pointer."""

    # Limits on what comes from outside.
    max_image_pixels: int = Field(default=64_000_000, gt=0, le=178_956_970)
    """Pixels an image may have (width x height, from its header, before decoding)."""
    max_images: int = Field(default=256, gt=0)
    """Images in one `/predict`."""
    max_body_mb: int = Field(default=64, gt=0)
    """MiB in a request body, `/upload` excepted; JSON may have one."""
    body_stall_s: float = Field(default=30, gt=0)
    """Seconds for which a request body may bring nothing; then it is refused with 408."""
    max_upload_mb: int = Field(default=8192, gt=0)
    """MiB in the archive sent to `/upload`."""
    max_archive_files: int = Field(default=2_000_000, gt=0)
    """Files in an archive; folders have no limit."""
    max_archive_mb: int = Field(default=65_536, gt=0)
    """MiB that the files of an archive may have together once decompressed."""

    # Who may call the service: see `imgcls/auth.py`.
    tokens: SecretStr | None = None
    """`role:TOKEN`, comma-separated."""
    tokens_file: Path | None = None
    """A file of `role:TOKEN` lines."""

    # The service.
    workers: int = Field(default=1, gt=0)
    max_batch: int = Field(default=32, gt=0)
    """Images that may run together, where the model is quick enough for that."""
    batch_ms: float = Field(default=5.0, gt=0)
    """What one run of a model may take on the CPU: batches grow until then, and no further."""
    max_queue: int = Field(default=1024, gt=0)
    """Images that may be under way in one worker; more are refused with 503."""
    max_queue_mb: int = Field(default=512, gt=0)
    """MiB that these images may have together, encoded; more are refused with 503."""
    deadline_ms: int = Field(default=30_000, gt=0)
    """A request that could not be answered by then gets 503."""
    max_loaded_models: int = Field(default=16, gt=0)
    """Models held in memory by one worker beside the active one; each has threads of its own."""
    model_memory_mb: int = Field(default=2048, gt=0)
    """MiB that the models in memory of one worker may need together, the active one included;
    what one needs is the growth of the process while it loads and warms up."""
    shadow_keep: int = Field(default=100, gt=0)
    """Disagreements of a shadow model that are kept with their images."""
    poll_ms: int = Field(default=200, gt=0)
    """How often an idle worker looks at the active pointer."""
    threads: int = Field(default=1, gt=0)
    """Threads of one run of a model on the CPU. A worker runs as many side by side as its share of
    the cores allows: more threads answer a lone request sooner, and fewer answer more of many."""
    providers: str = "auto"
    """ONNX Runtime execution providers, comma-separated; `auto` takes CUDA where it is."""

    # What it says of itself.
    log_access: bool = False
    """A line for each request on the logger `imgcls.access`."""
    log_format: Literal["text", "json"] = "text"
    monitor_rate: float = Field(default=0, ge=0, le=1)
    """Share of answers that are written through `bentoml.monitor`."""

    # Training.
    max_jobs: int = Field(default=16, gt=0)
    """Jobs that may wait or run; more are refused with 429."""
    keep_jobs: int = Field(default=500, ge=0)
    """Jobs that are over and still listed; of older ones only the models stay."""
    pixel_cache_mb: int = Field(default=20_480, ge=0)
    """MiB that decoded datasets may keep on disk together; those used longest ago are removed. One
    that is larger is kept until the next comes."""
    fit_nice: int = Field(default=10, ge=0, le=19)
    """Niceness of a training process, so that predictions go first."""

    @property
    def has_tokens(self) -> bool:
        """Whether callers need a token."""
        return self.tokens is not None or self.tokens_file is not None

    @field_validator("home", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        return value or bentoml_home() / "imgcls"  # as an empty BENTOML_HOME: not given


@lru_cache
def get_settings() -> Settings:
    """The settings of this process, read at the first call."""
    return Settings()
