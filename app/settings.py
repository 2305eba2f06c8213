"""Everything the service reads from its environment, once; no secrets, no defaults for them."""

import re
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.domain.decision import Gates
from app.domain.images import DEFAULT_LIMITS, ImageLimits
from app.domain.manifest import Runtime
from app.domain.uploads import MAX_PICTURE_SIDE
from app.inference.processors import available_processors

Gate = Literal["advise", "reject"]
"""What a finding about a picture does to its answer: `advise` refers it."""

_ORIGIN = r"https?://[a-z0-9.-]+(:[0-9]{1,5})?"
_ORIGINS = rf"^({_ORIGIN}( {_ORIGIN})*)?$"
"""As browsers write origins, so that they can be compared as text."""


_SERVER = rf"{_ORIGIN}(/[A-Za-z0-9._~-]+)*/?"
_SERVERS = rf"^({_SERVER}( {_SERVER})*)?$"
"""Bases of servers, without anything that would mean something in a browser's policy."""

_AE_TITLE = r"[!-+\--\[\]-~]{1,16}"
_AE_TITLES = rf"^({_AE_TITLE}(, ?{_AE_TITLE})*)?$"


_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})


def _require_bare(url: HttpUrl) -> HttpUrl:
    if url.username or url.password or url.query or url.fragment:
        raise ValueError("expected an address without user, password, query and fragment")
    return url


def _require_encryption(url: HttpUrl) -> HttpUrl:
    if url.scheme != "https" and url.host not in _THIS_MACHINE:
        raise ValueError("expected https, or http to this machine itself")
    return url


def _require_encryption_of_all(servers: str) -> str:
    for server in servers.split():
        try:
            url = HttpUrl(server)
        except ValidationError:
            raise ValueError("expected addresses of servers") from None  # the cause has the value
        _require_encryption(url)
    return servers


def _require_ports_as_browsers_write_them(servers: str) -> str:
    for server in servers.split():
        parts = urlsplit(server)
        default = {"https": 443, "http": 80}[parts.scheme]
        given = parts.netloc.partition(":")[2]
        if given and (given != str(parts.port) or parts.port in {0, default}):
            raise ValueError(
                "expected a port from 1 to 65535 without zeros before it, and none where it is "
                f"{default} of {parts.scheme}, as browsers write it"
            )
    return servers


def _require_networks(text: str) -> str:
    for name in filter(None, (part.strip() for part in text.split(","))):
        try:
            ip_network(name)
        except ValueError:
            raise ValueError(
                "expected addresses and networks, separated by commas, and no bits set behind a "
                "network's prefix"
            ) from None  # the cause has the value
    return text


def _require_header(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", secret.get_secret_value()):
        # Who sends it would refuse it later, with an exception that has it.
        raise ValueError("expected printable ASCII, no space or line break before or after it")
    return secret


BareUrl = Annotated[HttpUrl, AfterValidator(_require_bare)]
"""Of a server whose encryption another rule requires, or that gets nothing of patients."""

ServerUrl = Annotated[BareUrl, AfterValidator(_require_encryption)]
"""Of a server that patients' data are sent to, or that people are sent to."""


Origins = Annotated[
    str, Field(pattern=_ORIGINS), AfterValidator(_require_ports_as_browsers_write_them)
]
"""Separated by spaces."""


class Settings(BaseSettings):
    """Settings, each read from the environment variable of its name in capitals.

    Attributes:
        models_dir: Folder of `<name>/<version>/` artifacts; all of them are loaded.
        default_model: Answers requests that name no model; without it, the one of the
            highest balanced accuracy on its test part.
        shadow_model: `name@version` that scores what the default model answers, for the metrics
            alone; it answers nobody.
        model_public_keys: PEM file of Ed25519 public keys; what none of them has signed is not
            served. Signatures are ignored where it is not set.
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
        authentication: `auto`: required where there are credentials, off where there are none and
            the service listens on this machine alone; `required`: never off; `off`: never
            required, wherever it listens.
        api_keys_file: What `dermhybrid keys create` writes; read again when it changes.
        oauth_issuer: Whose access tokens are accepted.
        oauth_audience: Whom they must be for.
        oauth_jwks: The issuer's keys, a JSON Web Key Set: an https URL, or a file.
        operations_port: Where `/metrics` and `/admin` are, and nothing else but `/health`; on the
            service's own port where it is not set.
        tls_certificate: PEM file of the server's certificate and its chain; read again at SIGHUP.
        tls_private_key: PEM file of its key.
        forwarded_allow_ips: Addresses and networks, separated by commas, of the proxies whose
            `X-Forwarded-For` says who calls.
        client_timeout_seconds: For a client to send a request's head, or the rest of a body that
            was refused, or to take a piece of an answer.
        quota_per_minute: Images, or other requests, that a caller may send in the long run; any
            number where it is not set.
        quota_burst: How many of them at once.
        out_of_distribution_gate: Whether a picture unlike the training images rejects its
            answer, or refers it.
        quality_gate: Whether a picture of poor quality rejects its answer, or refers it
            (`advise`).
        audit_dir: Folder for the record of every answer; none is kept where it is not set.
        audit_max_file_bytes: Length from which a new file is begun.
        audit_required: Answer with 503 what could not be recorded; otherwise log and count it.
        fhir_server_url: Base of the FHIR server that answers are stored on where a request says
            so; without it none is.
        fhir_token_url: Token endpoint of its authorization server (SMART Backend Services), to
            be set together with the next three; without them it is asked without a token.
        fhir_client_id: As registered there.
        fhir_private_key_file: PEM of the registered key, P-384 or RSA.
        fhir_key_id: Under which it is registered.
        fhir_scope: What is asked for.
        fhir_timeout_seconds: For each step of a request to these servers.
        cds_hooks: Answer CDS Hooks calls; whoever may call learns what is in a patient's record.
        public_url: Where people open this service, for the link of its cards; none without it.
        dicom_queue_dir: Folder of the DICOM worker's jobs; there is no worker where it is not set.
        dicom_store_url: DICOMweb service that gets the worker's results by STOW-RS.
        dicom_store_plaintext: Results may go to another machine without encryption.
        dicom_store_authorization: Value of the Authorization header there.
        dicom_store_peer: Or the application entity that gets them by C-STORE, `TITLE@HOST:PORT`.
        dicom_listen_port: Port of the Storage SCP; there is none where it is not set.
        dicom_listen_host: Its address.
        dicom_calling_aes: AE titles that may call it, separated by commas; any may where there
            are none.
        dicom_tls_certificate: PEM file of its certificate and chain; it speaks TLS alone then.
        dicom_tls_private_key: PEM file of its key.
        dicom_tls_client_ca: PEM file of the authorities whose clients alone may call.
        dicom_listen_open: It may listen for the network without such a list and authorities.
        dicom_ae_title: Its AE title, and the one that results are sent by.
        dicom_max_waiting: Jobs that have not ended; more are refused.
        dicom_max_attempts: A job that failed so often is given up, and kept.
        dicom_retry_seconds: Before the second attempt; doubled for each further one, up to 300.
        dicom_dead_days: What jobs hold that were given up is discarded after so long.
        dicom_max_dead: And of more of them the oldest ones'.
        runtime: What runs the models; `openvino-int8` takes float32 for those without 8 bits.
        model_threads: Processor threads of a model call; where it is not set, as many as the
            process has processors.
        image_workers: Threads that decode uploads and draw overlays; where it is not set, as many
            as `model_threads`, but 2 to 8.
        viewer_frame_ancestors: Origins, separated by spaces, of the pages that may embed the
            clinician's page in a frame and talk to it; nobody may where there are none.
        smart_client_id: As the clinician's page is registered with the authorization servers of
            records that launch it (SMART App Launch); none may without it.
        smart_issuers: Bases, separated by spaces, of the FHIR servers that may launch it.
        smart_authorization_origins: Origins, separated by spaces, of their authorization
            servers, where these are not the FHIR servers' own.
        smart_scopes: What the page asks for, beside `launch` or `launch/patient`.
        otel_exporter_otlp_endpoint: Base of the OpenTelemetry collector that gets traces; nobody
            gets any where it is not set.
        otel_exporter_otlp_protocol: How they are sent; there is no other way.
        log_level: Of the JSON log on standard output.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    models_dir: Path = Path("models")
    default_model: str | None = None
    shadow_model: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*@[1-9][0-9]*$")] | None = None
    model_public_keys: Path | None = None
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
    authentication: Literal["auto", "required", "off"] = "auto"
    api_keys_file: Path | None = None
    oauth_issuer: Annotated[str, Field(min_length=1)] | None = None
    oauth_audience: Annotated[str, Field(min_length=1)] | None = None
    oauth_jwks: Annotated[str, Field(min_length=1)] | None = None
    operations_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls_certificate: Path | None = None
    tls_private_key: Path | None = None
    forwarded_allow_ips: Annotated[str, AfterValidator(_require_networks)] = "127.0.0.1"
    client_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    quota_per_minute: Annotated[float, Field(gt=0)] | None = None
    quota_burst: Annotated[int, Field(ge=1)] = 60
    out_of_distribution_gate: Gate = "reject"
    quality_gate: Gate = "advise"
    audit_dir: Path | None = None
    audit_max_file_bytes: Annotated[int, Field(ge=4096)] = 64 * 1024 * 1024
    audit_required: bool = True
    fhir_server_url: ServerUrl | None = None
    fhir_token_url: ServerUrl | None = None
    fhir_client_id: Annotated[str, Field(min_length=1)] | None = None
    fhir_private_key_file: Path | None = None
    fhir_key_id: Annotated[str, Field(min_length=1)] | None = None
    fhir_scope: str = (
        "system/Device.cs system/DiagnosticReport.crs system/Media.cs system/Observation.crs "
        "system/Provenance.cs"
    )
    fhir_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    cds_hooks: bool = False
    public_url: ServerUrl | None = None
    dicom_queue_dir: Path | None = None
    dicom_store_url: BareUrl | None = None
    dicom_store_plaintext: bool = False
    dicom_store_authorization: Annotated[SecretStr, AfterValidator(_require_header)] | None = None
    dicom_store_peer: (
        Annotated[str, Field(pattern=r"^[!-?A-\[\]-~]{1,16}@[^\s@:]+:[1-9][0-9]{0,4}$")] | None
    ) = None
    dicom_listen_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    dicom_listen_host: str = "127.0.0.1"
    dicom_calling_aes: Annotated[str, Field(pattern=_AE_TITLES)] = ""
    dicom_tls_certificate: Path | None = None
    dicom_tls_private_key: Path | None = None
    dicom_tls_client_ca: Path | None = None
    dicom_listen_open: bool = False
    dicom_ae_title: Annotated[str, Field(pattern=r"^[!-\[\]-~]{1,16}$")] = "DERMHYBRID"
    dicom_max_waiting: Annotated[int, Field(ge=1)] = 1000
    dicom_max_attempts: Annotated[int, Field(ge=1)] = 100
    dicom_retry_seconds: Annotated[float, Field(gt=0, le=300)] = 5.0
    dicom_dead_days: Annotated[float, Field(gt=0)] = 30.0
    dicom_max_dead: Annotated[int, Field(ge=0)] = 1000
    runtime: Runtime = "tensorflow"
    model_threads: Annotated[int, Field(ge=1, le=256)] | None = None
    image_workers: Annotated[int, Field(ge=1, le=64)] | None = None
    viewer_frame_ancestors: Origins = ""
    smart_client_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    smart_issuers: Annotated[
        str,
        Field(pattern=_SERVERS),
        AfterValidator(_require_encryption_of_all),
        AfterValidator(_require_ports_as_browsers_write_them),
    ] = ""
    smart_authorization_origins: Annotated[Origins, AfterValidator(_require_encryption_of_all)] = ""
    smart_scopes: Annotated[str, Field(pattern=r"^[!#-\[\]-~]+( [!#-\[\]-~]+)*$")] = (
        "patient/Patient.r patient/Media.crs patient/DocumentReference.rs patient/Binary.r "
        "patient/ImagingStudy.rs patient/Endpoint.r patient/DiagnosticReport.cs "
        "patient/Observation.cs patient/Device.cs patient/Provenance.cs"
    )
    otel_exporter_otlp_endpoint: BareUrl | None = None
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator(
        "models_dir",
        "model_public_keys",
        "api_keys_file",
        "tls_certificate",
        "tls_private_key",
        "audit_dir",
        "fhir_private_key_file",
        "dicom_queue_dir",
        "dicom_tls_certificate",
        "dicom_tls_private_key",
        "dicom_tls_client_ca",
        mode="before",
    )
    @classmethod
    def _require_path(cls, value: object) -> object:
        """An empty one, as from an unset variable of a template, would be the working directory."""
        if value == "":
            raise ValueError("expected a path; leave the variable out to set none")
        return value

    @model_validator(mode="after")
    def _check_effects(self) -> Self:
        """What is set does what it says."""
        given = self.model_fields_set
        if "audit_required" in given and self.audit_required and self.audit_dir is None:
            raise ValueError("AUDIT_REQUIRED=true needs AUDIT_DIR: nothing would be recorded")
        if "quota_burst" in given and self.quota_per_minute is None:
            raise ValueError("QUOTA_BURST is of no use without QUOTA_PER_MINUTE")
        if self.request_timeout_seconds > self.max_request_timeout_seconds:
            raise ValueError(
                "REQUEST_TIMEOUT_SECONDS is above MAX_REQUEST_TIMEOUT_SECONDS: who names no time "
                "would have more than who does"
            )
        if self.dicom_store_peer and int(self.dicom_store_peer.rpartition(":")[2]) > 65535:
            raise ValueError("DICOM_STORE_PEER: expected a port of at most 65535")
        if self.dicom_calling_aes and self.dicom_listen_port is None:
            raise ValueError("DICOM_CALLING_AES is of no use without DICOM_LISTEN_PORT")
        return self

    @model_validator(mode="after")
    def _check_access(self) -> "Settings":
        oauth = (self.oauth_issuer, self.oauth_audience, self.oauth_jwks)
        if any(oauth) and not all(oauth):
            raise ValueError("set all of OAUTH_ISSUER, OAUTH_AUDIENCE and OAUTH_JWKS, or none")
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("set both of TLS_CERTIFICATE and TLS_PRIVATE_KEY, or none")
        if self.authentication == "off" and self.has_credentials:
            raise ValueError("AUTHENTICATION=off contradicts API_KEYS_FILE and OAUTH_ISSUER")
        if self.authentication == "required" and not self.has_credentials:
            raise ValueError("AUTHENTICATION=required needs API_KEYS_FILE or OAUTH_ISSUER")
        return self

    @property
    def has_credentials(self) -> bool:
        """Whether callers are told apart."""
        return self.api_keys_file is not None or self.oauth_issuer is not None

    @model_validator(mode="after")
    def _check_fhir(self) -> "Settings":
        access = ("fhir_token_url", "fhir_client_id", "fhir_private_key_file", "fhir_key_id")
        missing = [name.upper() for name in access if getattr(self, name) is None]
        if 0 < len(missing) < len(access):
            raise ValueError(f"access to the FHIR server also needs {', '.join(missing)}")
        if not missing and self.fhir_server_url is None:
            raise ValueError("FHIR_TOKEN_URL is of no use without FHIR_SERVER_URL")
        return self

    @model_validator(mode="after")
    def _check_smart(self) -> Self:
        if (self.smart_client_id is None) != (not self.smart_issuers):
            raise ValueError("set both of SMART_CLIENT_ID and SMART_ISSUERS, or none")
        if self.smart_authorization_origins and not self.smart_issuers:
            raise ValueError("SMART_AUTHORIZATION_ORIGINS is of no use without SMART_ISSUERS")
        if re.search(r"\b(launch|offline_access|online_access)\b", self.smart_scopes):
            raise ValueError(
                "SMART_SCOPES: expected scopes without launch, which the page adds as the launch "
                "needs it, and without offline_access and online_access, whose tokens outlast it"
            )
        return self

    @model_validator(mode="after")
    def _check_dicom(self) -> Self:
        targets = [t for t in (self.dicom_store_url, self.dicom_store_peer) if t is not None]
        if self.dicom_queue_dir is not None and len(targets) != 1:
            raise ValueError(
                "DICOM_QUEUE_DIR needs one place for results: DICOM_STORE_URL or DICOM_STORE_PEER."
            )
        if self.dicom_queue_dir is None and (targets or self.dicom_listen_port is not None):
            raise ValueError("DICOM_STORE_URL, _PEER and DICOM_LISTEN_PORT need DICOM_QUEUE_DIR.")
        if self.dicom_store_url is not None and not self.dicom_store_plaintext:
            try:
                _require_encryption(self.dicom_store_url)
            except ValueError as error:
                raise ValueError(
                    f"DICOM_STORE_URL: {error}; or say that this is meant, with "
                    "DICOM_STORE_PLAINTEXT=true"
                ) from error
        if self.dicom_store_peer is not None and not self.dicom_store_plaintext:
            host = self.dicom_store_peer.rpartition("@")[2].rpartition(":")[0]
            if host not in _THIS_MACHINE:
                raise ValueError(
                    "DICOM_STORE_PEER: expected this machine, for C-STORE there has no TLS; or say "
                    "that this is meant, with DICOM_STORE_PLAINTEXT=true"
                )
        if (self.dicom_tls_certificate is None) != (self.dicom_tls_private_key is None):
            raise ValueError("set both of DICOM_TLS_CERTIFICATE and DICOM_TLS_PRIVATE_KEY, or none")
        if self.dicom_tls_client_ca is not None and self.dicom_tls_certificate is None:
            raise ValueError("DICOM_TLS_CLIENT_CA needs DICOM_TLS_CERTIFICATE")
        return self

    @property
    def dicom_callers(self) -> tuple[str, ...]:
        """The AE titles that may call; any may where there are none."""
        return tuple(title.strip() for title in self.dicom_calling_aes.split(",") if title)

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

    def num_image_workers(self) -> int:
        """Threads that decode and draw: enough for the processors, few enough for the memory."""
        if self.image_workers is not None:
            return self.image_workers
        return min(max(self.model_threads or available_processors(), 2), 8)
