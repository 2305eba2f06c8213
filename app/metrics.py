"""What is measured of the service; no patient data enters it.

Names follow Prometheus's conventions: prefix `dermhybrid_`, base units, labels with
a bounded set of values (route templates, loaded models, the seven classes).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from time import perf_counter
from typing import Final, Literal, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from app.answer_metrics import AnswerMetrics
from app.dicom_metrics import DicomMetrics
from app.domain.manifest import Manifest, Runtime

Role = Literal["serving", "shadow"]

# A time for each series, which nothing here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCY_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    0.75,
) + (1.0, 1.5, 2.5, 5.0, 10.0)

_PROBABILITY_BUCKETS: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_BATCH_SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64)


class Named(Protocol):
    """What measurements are of: a model's manifest, or an ensemble's."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> int:
        """Of the model."""
        ...


class Metrics:
    """The service's metrics in a registry of their own, one for each application.

    Attributes:
        requests: Finished requests by method, route template and status.
        request_seconds: Their duration by method and route template.
        batch_images: Images of batches, by route template and the status of their line.
        in_flight: Requests being answered now.
        stage_seconds: Duration of receive, queue, decode, inference, explain, encode and store, by
            model version.
        batch_size: Images that a model was given at once.
        problems: Failures that callers were told of, by route template and kind.
        queue_images: Images that wait in line, by model version.
        answers: What was answered.
        self_test: 1 for each model that reproduced its golden example last time, else 0.
        self_tested_at: When that was.
        model_info: 1 for each loaded model, with its digest.
        shadow_predictions: Images that the shadow scored, by the class answered and its own.
        shadow_change: Largest difference of a probability between it and the answer.
        shadow_missed: Images that it did not score.
        audit_seconds: How long an answer waited for its record.
        audit_sequence: Number of the newest audit record.
        audit_failures: Answers that could not be recorded.
        feedback: Diagnoses that came back, by class and by how they were made.
        fhir_stored: Answers that were to be stored on the FHIR server, by what became of it.
        dicom: DICOM jobs.
        trace_spans_lost: Spans that no collector got, by reason.
        ready: 1 while `/health/ready` says so.
        authentication: 1 where callers are told apart.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "dermhybrid_http_requests_total",
            "Finished HTTP requests.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "dermhybrid_http_request_duration_seconds",
            "Duration of HTTP requests.",
            ("method", "route"),
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.problems = Counter(
            "dermhybrid_problems_total",
            "Failures that callers were told of, by the type of their problem details; an image of "
            "a batch counts by itself. service-busy was shed, deadline-exceeded has expired, "
            "client-closed-request was cancelled by its caller.",
            ("route", "problem"),
            registry=self.registry,
        )
        self.batch_images = Counter(
            "dermhybrid_batch_images_total",
            "Images of batches by the status of their line: what /predict would have answered.",
            ("route", "status"),
            registry=self.registry,
        )
        for status in (200, 500, 503, 504):  # from 0 on: an increase from nothing is none
            self.batch_images.labels("/predict/batch", status)
        self.in_flight = Gauge(
            "dermhybrid_http_requests_in_flight",
            "HTTP requests being answered.",
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "dermhybrid_stage_duration_seconds",
            "Duration of a stage of a prediction: receive (the body of /predict), queue, decode, "
            "inference, explain, encode, store (on the FHIR server).",
            ("stage", "model", "version"),
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.queue_images = Gauge(
            "dermhybrid_queue_images",
            "Images that wait in line for a model.",
            ("model", "version"),
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "dermhybrid_batch_size",
            "Images that a model was given at once.",
            ("model", "version"),
            buckets=_BATCH_SIZE_BUCKETS,
            registry=self.registry,
        )
        self.answers = AnswerMetrics(self.registry)
        self.self_test = Gauge(
            "dermhybrid_self_test_passed",
            "1 where the model reproduced its golden example at the last self-test, else 0.",
            ("model", "version"),
            registry=self.registry,
        )
        self.self_tested_at = Gauge(
            "dermhybrid_self_test_timestamp_seconds",
            "Unix time of the last self-test.",
            ("model", "version"),
            registry=self.registry,
        )
        self.model_info = Gauge(
            "dermhybrid_model_info",
            "Loaded models and what runs them; the digest is the SHA-256 of the manifest. A model "
            "of role shadow scores what the default model answers, and answers nobody.",
            ("model", "version", "digest", "runtime", "role"),
            registry=self.registry,
        )
        self.shadow_predictions = Counter(
            "dermhybrid_shadow_predictions_total",
            "Images that the shadow scored, by the class that was answered and its own.",
            ("model", "version", "served_class", "shadow_class"),
            registry=self.registry,
        )
        self.shadow_change = Histogram(
            "dermhybrid_shadow_probability_change",
            "Largest difference of a probability between the shadow and the answer.",
            ("model", "version"),
            buckets=_PROBABILITY_BUCKETS,
            registry=self.registry,
        )
        self.shadow_missed = Counter(
            "dermhybrid_shadow_missed_total",
            "Images that the shadow did not score: other images waited (busy), or it failed.",
            ("model", "version", "reason"),
            registry=self.registry,
        )
        self.audit_seconds = Histogram(
            "dermhybrid_audit_duration_seconds",
            "How long an answer waited until its record was on the disk.",
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.audit_sequence = Gauge(
            "dermhybrid_audit_sequence",
            "Number of the newest audit record.",
            registry=self.registry,
        )
        self.audit_failures = Counter(
            "dermhybrid_audit_failures_total",
            "Answers that could not be recorded.",
            registry=self.registry,
        )
        self.feedback = Counter(
            "dermhybrid_feedback_total",
            "Diagnoses that came back for answers, by class and by how they were made.",
            ("diagnosis", "source"),
            registry=self.registry,
        )
        self.fhir_stored = Counter(
            "dermhybrid_fhir_stored_total",
            "Answers that were to be stored on the FHIR server: stored, failed.",
            ("outcome",),
            registry=self.registry,
        )
        for outcome in ("stored", "failed"):
            self.fhir_stored.labels(outcome)
        self.dicom = DicomMetrics(self.registry)
        self.trace_spans_lost = Counter(
            "dermhybrid_trace_spans_lost_total",
            "Spans that no collector got: too many waited (queue-full), or it did not take them "
            "(not-exported).",
            ("reason",),
            registry=self.registry,
        )
        self.ready = Gauge(
            "dermhybrid_ready",
            "1 while /health/ready answers 200: no model has failed its self-test, and the service "
            "does not stop.",
            registry=self.registry,
        )
        self.authentication = Gauge(
            "dermhybrid_authentication_required",
            "1 where callers are told apart, 0 where anybody may ask for predictions.",
            registry=self.registry,
        )
        Gauge(
            "dermhybrid_build_info",
            "The service's version.",
            ("version",),
            registry=self.registry,
        ).labels(version("dermhybrid")).set(1)

    def announce_models(self, models: Iterable[tuple[Manifest, str, Runtime, Role]]) -> None:
        """Publish the loaded models, each with digest, runtime and role."""
        self.model_info.clear()
        self.self_test.clear()
        self.self_tested_at.clear()
        self.answers.forget_models()
        for manifest, digest, runtime, role in models:
            labels = (manifest.name, str(manifest.version), digest, runtime, role)
            self.model_info.labels(*labels).set(1)

    def watch_readiness(self, is_ready: Callable[[], bool]) -> None:
        """Publish whether predictions are answered, as asked at every scrape."""
        self.ready.set_function(lambda: float(is_ready()))

    def watch_queues(self, queues: Iterable[tuple[Named, Callable[[], int]]]) -> None:
        """Publish how many images wait for each model, as asked at every scrape."""
        self.queue_images.clear()
        for model, num_waiting in queues:
            self.queue_images.labels(model.name, str(model.version)).set_function(num_waiting)

    @contextmanager
    def time_stage(self, stage: str, manifest: Named) -> Iterator[None]:
        """Measure a stage that succeeds; a failed one says nothing about speed."""
        started = perf_counter()
        yield
        self.observe_stage(stage, manifest, perf_counter() - started)

    def observe_stage(self, stage: str, manifest: Named, seconds: float) -> None:
        """Record the duration of a stage."""
        labels = (stage, manifest.name, str(manifest.version))
        self.stage_seconds.labels(*labels).observe(seconds)

    def observe_batch(self, manifest: Manifest, num_images: int) -> None:
        """Record the size of a batch."""
        self.batch_size.labels(manifest.name, str(manifest.version)).observe(num_images)

    def report_self_test(self, manifest: Manifest, *, passed: bool | None) -> None:
        """Publish the outcome of a self-test.

        Args:
            manifest: Of the model.
            passed: None where there was no test; if it stays so, the last one's age says it.
        """
        labels = (manifest.name, str(manifest.version))
        tested_at = self.self_tested_at.labels(*labels)
        if passed is not None:
            self.self_test.labels(*labels).set(passed)
            tested_at.set_to_current_time()

    def observe_shadow(self, manifest: Manifest, served: str, shadow: str, change: float) -> None:
        """Record what the shadow made of an image, beside the answer that was given."""
        labels = (manifest.name, str(manifest.version))
        self.shadow_predictions.labels(*labels, served, shadow).inc()
        self.shadow_change.labels(*labels).observe(change)

    def miss_shadow(self, manifest: Manifest, reason: Literal["busy", "error"]) -> None:
        """Count an image that the shadow did not score."""
        self.shadow_missed.labels(manifest.name, str(manifest.version), reason).inc()

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)
