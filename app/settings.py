"""Every knob of the service, read from the environment with the prefix DETRANK_. Units are in the names."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Three URLs choose the deployment; everything else has a default that suits both."""

    model_config = SettingsConfigDict(env_prefix="DETRANK_", extra="ignore")

    data_dir: Path = Field(default=Path("~/.detrank"), description="folder of the embedded deployment and of local caches")
    database_url: str = Field(default="", description="empty: SQLite in data_dir; or postgresql+psycopg://...")
    broker_url: str = Field(default="", description="empty: files in data_dir; or redis://... or amqp://...")
    storage_url: str = Field(default="", description="empty: a folder in data_dir; or file:///..., s3://bucket/prefix")

    auth: Literal["none", "keys"] = Field(default="none", description="none: one workspace, loopback only; keys: API keys")
    allow_local_paths: bool = Field(default=False, description="accept paths on the server's disk as a source")
    cors_origins: list[str] = []

    max_json_bytes: int = 1 << 20
    max_upload_bytes: int = 64 << 30
    max_archive_files: int = 200_000
    max_archive_bytes: int = 256 << 30
    max_archive_file_bytes: int = 8 << 30
    max_archive_ratio: int = 200
    min_free_disk_bytes: int = 1 << 30
    upload_expires_s: int = 24 * 3600
    idempotency_expires_s: int = 24 * 3600
    max_candidates: int = 200

    lease_s: float = Field(default=30.0, description="a worker silent for this long has lost its job")
    sweep_s: float = Field(default=5.0, description="how often lapsed leases and the outbox are looked at")
    relay_s: float = Field(default=0.5, description="how often the API looks for unpublished messages")
    bell_s: float = Field(default=30.0, description="a queued job that nobody claimed is announced again after this, then ever later")
    retry_s: float = Field(default=5.0, description="wait before the second attempt; doubles with each further one")
    stop_grace_s: float = Field(default=30.0, description="a job that does not stop when told to is ended with its process after this")
    queue_prefix: str = Field(default="", description="put before queue names, for several services on one broker")
    max_attempts: int = 3
    job_time_limit_s: float = 6 * 3600.0
    verify_time_limit_s: float = Field(default=7 * 24 * 3600.0, description="of one attempt at a verification; others: job_time_limit_s")
    inspect_time_limit_s: float = 600.0
    inspect_memory_bytes: int = 0

    feature_cache_bytes: int = 20 << 30
    pixel_cache_bytes: int = Field(default=20 << 30, description="decoded pictures that the candidates of a ranking share; 0 keeps none")
    feature_table_bytes: int = Field(default=4 << 30, description="a candidate's features are kept up to this size, above it only statistics of them")
    shared_file_bytes: int = Field(default=4 << 30, description="features up to this size go into storage, where other hosts find them")
    shared_features_bytes: int = Field(default=50 << 30, description="of all of them together; the longest unused go first")
    shard_images: int = Field(default=2000, ge=1, description="a candidate with more images than this is read by several jobs, each of about so many")
    model_cache_bytes: int = Field(default=2 << 30, description="detectors that a worker keeps loaded between jobs; 0: none")
    dataset_cache_bytes: int = 50 << 30
    decode_threads: int = 2
    train_processes: int = Field(default=1, description="a verification trains on so many GPUs of one worker at once")
    training_state_s: float = Field(default=60.0, description="how often at most a training's state is copied to storage")
    training_state_kept_s: float = Field(default=7 * 24 * 3600.0, description="for trying a failed or cancelled training again from there")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="in which features are read; auto: below float32 only where scores stay within 1e-3"
    )

    log_level: str = "INFO"

    @property
    def embedded(self) -> bool:
        """True where neither a database nor a broker server was named."""
        return not self.database_url and not self.broker_url

    @property
    def home(self) -> Path:
        return self.data_dir.expanduser().absolute()

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'detrank.db'}"

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
    return Settings()
