"""Every knob of the service, read from the environment with the prefix DETRANK_. Units are in the names."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from app.deployment_urls import fault_of, with_driver

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class WrongSettings(ValueError):
    """What the environment says cannot be meant; a line for each setting."""


class Settings(BaseSettings):
    """Three URLs choose the deployment; everything else has a default that suits both."""

    model_config = SettingsConfigDict(env_prefix="DETRANK_", extra="ignore")

    data_dir: Path = Field(
        default=Path("~/.detrank"), description="folder of the embedded deployment and of local caches"
    )
    database_url: str = Field(
        default="", description="empty: SQLite in data_dir; or postgresql+psycopg://..."
    )
    broker_url: str = Field(default="", description="empty: files in data_dir; or redis://... or amqp://...")
    storage_url: str = Field(
        default="", description="empty: a folder in data_dir; or file:///..., s3://bucket/prefix"
    )

    auth: Literal["none", "keys"] = Field(
        default="none", description="none: one workspace, loopback only; keys: API keys"
    )
    key_requests_per_minute: int = Field(default=0, ge=0, description="of one API key; 0: any number")
    workspace_requests_per_minute: int = Field(default=0, ge=0, description="of all its keys; 0: any number")
    key_uploads_per_hour: int = Field(
        default=0, ge=0, description="files that one API key begins to send; 0: any number"
    )
    workspace_uploads_per_hour: int = Field(default=0, ge=0, description="of all its keys; 0: any number")
    workspace_bytes: int = Field(
        default=0, ge=0, description="stored for a workspace that has no quota of its own; 0: any number"
    )
    workspace_queued_jobs: int = Field(
        default=0, ge=0, description="of a workspace that has no quota of its own; 0: any number"
    )
    metrics: Literal["open", "key", "off"] = Field(
        default="open",
        description="/metrics: for everybody; for keys with the scope metrics or admin; for nobody",
    )
    audit_kept_s: float = Field(
        default=90 * 24 * 3600.0, description="how long the audit log tells who changed what"
    )
    webhooks_to_private: bool = Field(
        default=False, description="webhooks may lead into private networks and to this machine"
    )
    fetch_from_private: bool = Field(
        default=False,
        description="fetching weights and datasets may lead into private networks; the package index, hub, store and proxy that "
        "the environment names may be there anyway",
    )
    webhook_give_up_s: float = Field(
        default=3 * 24 * 3600.0, description="a webhook that took nothing for so long is disabled"
    )
    allow_local_paths: bool = Field(
        default=False, description="accept paths on the server's disk as a source"
    )
    allowed_sources: str = Field(
        default="",
        description="where datasets may stay, separated by commas: file:///mnt/data, s3://bucket/prefix, "
        "hf://datasets/org; whatever lies under one of them is accepted; empty: nothing",
    )
    cors_origins: list[str] = Field(
        default=[], description="pages of other origins that may ask, as a JSON list"
    )

    kept_answers_bytes: int = Field(
        default=64 << 20,
        description="answers that the API keeps in memory as long as nothing in them changes",
    )
    max_json_bytes: int = Field(default=1 << 20, description="of a JSON body")
    max_upload_bytes: int = Field(default=64 << 30, description="of one file that is sent")
    max_archive_files: int = Field(default=200_000, description="files in an archive")
    max_archive_bytes: int = Field(default=256 << 30, description="of an archive when unpacked")
    max_archive_file_bytes: int = Field(default=8 << 30, description="of one file in an archive")
    max_archive_ratio: int = Field(default=200, description="how many times larger than packed")
    max_source_files: int = Field(default=5_000_000, description="of a dataset that stays where it is")
    min_free_disk_bytes: int = Field(
        default=1 << 30, description="stay free on every disk that is written to"
    )
    upload_expires_s: int = Field(
        default=24 * 3600, description="an upload that nobody used is deleted after this"
    )
    datasets_kept_s: float = Field(
        default=0.0,
        ge=0,
        description="a dataset that nothing uses is deleted so long after it was made; 0: when somebody deletes it",
    )
    checkpoints_kept_s: float = Field(
        default=0.0,
        ge=0,
        description="the same of a checkpoint, fine-tuned ones too; 0: when somebody deletes it",
    )
    rankings_kept_s: float = Field(
        default=0.0,
        ge=0,
        description="a ranking is deleted with its verifications so long after its end; 0: when somebody deletes it",
    )
    work_kept_s: float = Field(
        default=0.0,
        ge=0,
        description="the same of studies, searches, pretrainings, pseudo-labellings and single verifications, with their parts",
    )
    events_kept_s: float = Field(default=30 * 24 * 3600.0, description="of jobs; progress goes after an hour")
    idempotency_expires_s: int = Field(
        default=24 * 3600, description="an answer is remembered by its Idempotency-Key for so long"
    )
    max_candidates: int = Field(default=200, description="of one ranking, search or study")

    lease_s: float = Field(default=30.0, description="a worker silent for this long has lost its job")
    sweep_s: float = Field(default=5.0, description="how often lapsed leases and the outbox are looked at")
    relay_s: float = Field(default=0.5, description="how often the API looks for unpublished messages")
    bell_s: float = Field(
        default=30.0,
        description="a queued job that nobody claimed is announced again after this, then ever later",
    )
    retry_s: float = Field(
        default=5.0, description="wait before the second attempt; doubles with each further one"
    )
    room_s: float = Field(
        default=30.0, description="how long a job whose worker's disk was full waits before it looks again"
    )
    stop_grace_s: float = Field(
        default=30.0, description="a job that does not stop when told to is ended with its process after this"
    )
    queue_prefix: str = Field(
        default="", description="put before queue names, for several services on one broker"
    )
    max_attempts: int = Field(default=3, description="at a job whose worker was lost or met a passing fault")
    job_time_limit_s: float = Field(default=6 * 3600.0, description="of one attempt at a job")
    intake_time_limit_s: float = Field(
        default=2 * 3600.0,
        gt=0,
        description="of one attempt at reading a dataset or a checkpoint, fetching it included",
    )
    verify_time_limit_s: float = Field(
        default=7 * 24 * 3600.0, description="of one attempt at a verification; others: job_time_limit_s"
    )
    inspect_time_limit_s: float = Field(
        default=600.0, description="of the child process that converts a checkpoint"
    )
    inspect_memory_bytes: int = Field(default=0, description="that it may take; 0: 12 GiB")
    ingest_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="that reading an archive may take beyond what a worker has; 0: half of the machine's",
    )

    feature_cache_bytes: int = Field(
        default=20 << 30, description="features kept on this host; those used longest ago go first"
    )
    pixel_cache_bytes: int = Field(
        default=20 << 30, description="decoded pictures that the candidates of a ranking share; 0 keeps none"
    )
    feature_table_bytes: int = Field(
        default=4 << 30,
        description="a candidate's features are kept up to this size, above it only statistics of them",
    )
    shared_file_bytes: int = Field(
        default=4 << 30, description="features up to this size go into storage, where other hosts find them"
    )
    shared_features_bytes: int = Field(
        default=50 << 30, description="of all of them together; the longest unused go first"
    )
    shard_images: int = Field(
        default=2000,
        ge=1,
        description="a candidate with more images than this is read by several jobs, each of about so many",
    )
    model_cache_bytes: int = Field(
        default=2 << 30, description="detectors that a worker keeps loaded between jobs; 0: none"
    )
    dataset_cache_bytes: int = Field(
        default=50 << 30, description="unpacked datasets kept on this host; those used longest ago go first"
    )
    picture_cache_bytes: int = Field(
        default=20 << 30,
        description="pictures fetched from where datasets stay; those used longest ago go first",
    )
    decode_threads: int = Field(default=2, description="that read pictures beside each job")
    train_processes: int = Field(
        default=1, description="a verification trains on so many GPUs of one worker at once"
    )
    training_state_s: float = Field(
        default=60.0, description="how often at most a training's state is copied to storage"
    )
    training_state_kept_s: float = Field(
        default=7 * 24 * 3600.0, description="for trying a failed or cancelled training again from there"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="in which features are read; auto: below float32 only where scores stay within 1e-3",
    )

    traces_url: str = Field(
        default="",
        description="where traces go, by OTLP over HTTP, such as http://collector:4318/v1/traces; empty: there are none",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="the least grave that is logged"
    )

    @field_validator("database_url", "broker_url", "storage_url", "traces_url")
    @classmethod
    def _can_be_meant(cls, value: str, info: ValidationInfo) -> str:
        if value and (fault := fault_of(str(info.field_name), value)):
            raise ValueError(fault)
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError("is none of auto, cpu, cuda and cuda:N, such as cuda:0")
        return value

    @property
    def embedded(self) -> bool:
        """True where neither a database nor a broker server was named."""
        return not self.database_url and not self.broker_url

    @property
    def home(self) -> Path:
        return self.data_dir.expanduser().absolute()

    @property
    def resolved_database_url(self) -> str:
        return with_driver(self.database_url) or f"sqlite:///{self.home / 'detrank.db'}"

    @property
    def resolved_broker_url(self) -> str:
        return self.broker_url or f"detrank-files://{self.home / 'broker'}"

    @property
    def resolved_storage_url(self) -> str:
        return self.storage_url or f"file://{self.home / 'storage'}"

    @property
    def cache_dir(self) -> Path:
        """Files of this host that can be made again: unpacked datasets, features, checkpoints fetched from storage."""
        return self.home / "cache"

    @property
    def scratch_dir(self) -> Path:
        """Files of running requests and jobs; whatever is old here is an orphan."""
        return self.home / "scratch"


@lru_cache
def get_settings() -> Settings:
    """Those of the environment, read once. Raises WrongSettings."""
    try:
        return Settings()
    except ValidationError as failure:
        raise WrongSettings(
            "; ".join(
                f"DETRANK_{'_'.join(map(str, each['loc'])).upper()} {each['msg'].removeprefix('Value error, ')}"
                for each in failure.errors()
            )
        ) from failure
    except SettingsError as failure:  # of what is written as JSON
        raise WrongSettings(f"a setting is no JSON: {failure}") from failure
