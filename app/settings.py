"""Everything the service reads from its environment, once; no secrets, no defaults for them."""

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.domain.decision import Gates
from app.domain.images import DEFAULT_LIMITS, ImageLimits
from app.domain.manifest import Runtime
from app.domain.uploads import MAX_PICTURE_SIDE

Gate = Literal["advise", "reject"]
"""What a finding about a picture does to its answer: `advise` refers it."""

_ORIGIN = r"https?://[a-z0-9.-]+(:[0-9]{1,5})?"
_ORIGINS = rf"^({_ORIGIN}( {_ORIGIN})*)?$"
"""As browsers write origins, so that they can be compared as text."""


class Settings(BaseSettings):
    """Settings, each read from the environment variable of its name in capitals.

    Attributes:
        models_dir: Folder of `<name>/<version>/` artifacts; all of them are loaded.
        default_model: Answers requests that name no model; without it, the one of the
            highest balanced accuracy on its test part.
        shadow_model: `name@version` that scores what the default model answers, for the metrics
            alone; it answers nobody.
        max_image_bytes: Largest upload.
        max_image_pixels: Largest width times height, checked before decoding.
        max_overlay_side: Longest side of an overlay in pixels; it is as large as the image
            otherwise.
        min_image_side: Smallest width and height in pixels.
        max_predictions_in_progress: More are refused with 503, so that pictures waiting for
            the model do not fill the memory.
        max_batches_in_progress: Requests to `/predict/batch` at once.
        max_batch_images: Images in such a request.
        max_batch_bytes: Length of such a request.
        max_batch_size: Images that a model is given at once, at most.
        max_batch_wait_seconds: How long an incomplete batch is held straight after another.
        request_timeout_seconds: Time for an answer where X-Request-Timeout is not sent.
        max_request_timeout_seconds: Longest X-Request-Timeout.
        drain_seconds: After SIGTERM, how long requests are still answered, new predictions
            with 503, so that a load balancer learns of it before the port closes.
        shutdown_grace_seconds: After SIGTERM, how long predictions in progress may take.
        self_test_interval_seconds: Time between two self-tests of all models while serving.
        admin_token_sha256: SHA-256, in hexadecimal, of the bearer token of `/admin`; without
            it there is no `/admin`.
        out_of_distribution_gate: Whether a picture unlike the training images rejects its
            answer, or refers it.
        quality_gate: Whether a picture of poor quality rejects its answer, or refers it
            (`advise`).
        audit_dir: Folder for the record of every answer; none is kept where it is not set.
        audit_max_file_bytes: Length from which a new file is begun.
        audit_required: Answer with 503 what could not be recorded; otherwise log and count it.
        runtime: What runs the models; `openvino-int8` takes float32 for those without 8 bits.
        model_threads: Processor threads of a model call; all that the process may use where it
            is not set.
        image_workers: Threads that decode uploads and draw overlays.
        viewer_frame_ancestors: Origins, separated by spaces, of the pages that may embed the
            clinician's page in a frame and talk to it; nobody may where there are none.
        log_level: Of the JSON log on standard output.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    models_dir: Path = Path("models")
    default_model: str | None = None
    shadow_model: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*@[1-9][0-9]*$")] | None = None
    max_image_bytes: Annotated[int, Field(ge=1024)] = DEFAULT_LIMITS.max_bytes
    max_image_pixels: Annotated[int, Field(ge=224 * 224)] = DEFAULT_LIMITS.max_pixels
    max_overlay_side: Annotated[int, Field(ge=224, le=8192)] = MAX_PICTURE_SIDE
    min_image_side: Annotated[int, Field(ge=1)] = DEFAULT_LIMITS.min_side_pixels
    max_predictions_in_progress: Annotated[int, Field(ge=1)] = 64
    max_batches_in_progress: Annotated[int, Field(ge=1)] = 2
    max_batch_images: Annotated[int, Field(ge=1)] = 64
    max_batch_bytes: Annotated[int, Field(ge=1024)] = 128 * 1024 * 1024
    max_batch_size: Annotated[int, Field(ge=1, le=64)] = 8
    max_batch_wait_seconds: Annotated[float, Field(ge=0, le=1)] = 0.0
    request_timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    max_request_timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    drain_seconds: Annotated[float, Field(ge=0)] = 1.0
    shutdown_grace_seconds: Annotated[float, Field(ge=0)] = 30.0
    self_test_interval_seconds: Annotated[float, Field(gt=0)] = 300.0
    admin_token_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    out_of_distribution_gate: Gate = "reject"
    quality_gate: Gate = "advise"
    audit_dir: Path | None = None
    audit_max_file_bytes: Annotated[int, Field(ge=4096)] = 64 * 1024 * 1024
    audit_required: bool = True
    runtime: Runtime = "tensorflow"
    model_threads: Annotated[int, Field(ge=1, le=256)] | None = None
    image_workers: Annotated[int, Field(ge=1, le=64)] = 2
    viewer_frame_ancestors: Annotated[str, Field(pattern=_ORIGINS)] = ""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    def digest(self) -> str:
        """SHA-256 of all settings, to tell by which an answer was given."""
        return sha256(self.model_dump_json().encode()).hexdigest()

    def gates(self) -> Gates:
        """What rejects an answer, in the form that decisions take."""
        return Gates(
            reject_novelty=self.out_of_distribution_gate == "reject",
            reject_quality=self.quality_gate == "reject",
        )

    def image_limits(self) -> ImageLimits:
        """The bounds in the form that the decoder takes."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels, self.min_image_side)
