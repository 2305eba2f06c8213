"""Measurements of DICOM jobs (ADR-0019); of no single photograph."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from app.domain.errors import INTERNAL_ERROR

_ANYWHERE: Final = ("dicom-queue", "resources-exhausted", INTERNAL_ERROR)
_REFUSED: Final = (
    *("dicom-not-photograph", "dicom-frame"),
    *("image-format", "image-corrupt", "image-too-many-bytes"),
)
_OF_JOBS: Final = (*_ANYWHERE, "dicom-delivery", "audit-unavailable", "model-fault")


class DicomMetrics:
    """Where DICOM jobs are, and what fails; all kinds of failures that are expected begin at 0.

    Attributes:
        jobs: On the disk, by state.
        failures: Failed attempts, by kind of failure and by what it made of the job: `postponed`,
            `dead`, `refused`.
        discarded: Jobs that were given up, and whose content is gone.
        refused: Objects that are no photograph to answer, by kind of problem.
        not_taken: Photographs that could not be taken, by kind of failure.
        associations: Of the Storage SCP, that it ended, by reason.
        worker_failures: Times that no job could be begun or ended, by kind of failure.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.jobs = Gauge(
            "dermhybrid_dicom_jobs",
            "DICOM jobs on the disk.",
            ("state",),
            registry=registry,
        )
        self.failures = Counter(
            "dermhybrid_dicom_failures_total",
            "Failed attempts of DICOM jobs. Such a job is tried again (postponed) or given up "
            "(dead); or it cannot be answered at all (refused).",
            ("kind", "outcome"),
            registry=registry,
        )
        self.discarded = Counter(
            "dermhybrid_dicom_discarded_total",
            "DICOM jobs that were dead for too long, or too many: what they held is gone.",
            registry=registry,
        )
        self.refused = Counter(
            "dermhybrid_dicom_refused_total",
            "Objects that were sent, by HTTP or C-STORE, and refused at once, for they are no "
            "photograph that can be answered: who sent them was told the problem.",
            ("kind",),
            registry=registry,
        )
        self.not_taken = Counter(
            "dermhybrid_dicom_not_taken_total",
            "Photographs that were sent, by HTTP or C-STORE, and not taken: the queue could not be "
            "written (dicom-queue) or is full (service-busy), or the machine has nothing left "
            "(resources-exhausted).",
            ("kind",),
            registry=registry,
        )
        self.worker_failures = Counter(
            "dermhybrid_dicom_worker_failures_total",
            "Times that the worker could begin or end no DICOM job: the queue could not be read or "
            "written (dicom-queue), or the machine has nothing left (resources-exhausted).",
            ("kind",),
            registry=registry,
        )
        self.associations = Counter(
            "dermhybrid_dicom_associations_ended_total",
            "Associations of the Storage SCP that it ended: the caller's or the called AE title is "
            "not one that it takes, or too many at once (rejected); there was no TLS handshake "
            "(tls); nothing that is taken was offered (no-context); an object is longer than is "
            "taken (object-too-long); or a protocol data unit is longer than any of a photograph's "
            "(pdu-too-long), or did not come in time (pdu-too-slow).",
            ("reason",),
            registry=registry,
        )
        # From 0 on: an increase from nothing is none.
        for kind in _OF_JOBS:
            for outcome in ("postponed", "dead"):
                self.failures.labels(kind, outcome)
        self.failures.labels("process-ended", "dead")
        for reason in (
            "rejected",
            "tls",
            "no-context",
            "object-too-long",
            "pdu-too-long",
            "pdu-too-slow",
        ):
            self.associations.labels(reason)
        for kind in (*_ANYWHERE, "service-busy"):
            self.not_taken.labels(kind)
        for kind in _REFUSED:
            self.refused.labels(kind)
        for kind in _ANYWHERE:
            self.worker_failures.labels(kind)
