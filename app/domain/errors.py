"""The exceptions of DermHybrid; knows nothing of HTTP.

```
DermHybridError
├── ImageRejectedError            an upload that cannot be answered
│   ├── ImageEmptyError
│   ├── ImageTooManyBytesError
│   ├── ImageFormatError
│   ├── ImageCorruptError
│   ├── ImageTooSmallError
│   ├── ImageTooManyPixelsError
│   ├── DicomNotPhotographError
│   ├── DicomFrameError
│   └── DicomSupportMissingError
├── ModelNotFoundError            no loaded model has that name
├── HeatmapUnavailableError       there is no heatmap of that method and class
├── ModelFaultError               a loaded model does not answer as it was measured to
├── ServiceBusyError              as many predictions are in progress as fit
├── ServiceStoppingError          the service takes nothing more
├── ResourcesExhaustedError       the machine has no memory, disk or descriptor for it
├── DeadlineExceededError         the request's time has passed
├── RequestTooLongError           a body that is longer than anything it may hold
├── FhirParametersError           FHIR Parameters that are not what the operation takes
├── FhirServerError               the hospital's FHIR server did not do what was asked
├── AnswerNotFoundError           no such answer is recorded
├── AnswerAmbiguousError          several answers are meant, or none in particular
├── AuditUnavailableError         an answer could not be recorded
├── AuditDamagedError             the records so far are not what was written
├── NotAuthenticatedError         nobody knows who the caller is
├── NotAuthorizedError            the caller may not do this
├── QuotaExceededError            the caller has asked for more than its share
├── IdentityProviderUnavailableError  a token cannot be checked at present
├── AccessConfigurationError      who may call was not set up in a way that could be used
├── SettingsRefusedError          the environment has settings that are not taken
├── TracingUnavailableError       spans are to be sent, and what sends them is not installed
├── DicomQueueError               the queue of DICOM jobs cannot be used
├── DicomJobNotFoundError         there is no such DICOM job
├── DicomJobNotDeadError          a DICOM job that was not given up cannot be tried again
├── DicomDeliveryError            an archive did not take results
└── ArtifactError                 a model artifact that must not be served
    ├── ArtifactIncompleteError
    ├── ArtifactDigestError
    ├── ArtifactSignatureError
    ├── ManifestError
    └── GoldenExampleError
```

`app.api.errors` maps every leaf to one HTTP status; a test walks this tree.
"""

import errno
from typing import Final

_EXHAUSTED: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM}
)
_LIBRARIES_WORDS: Final = (
    *("bad_alloc", "bad allocation", "start new thread"),
    *("nsufficient memory", "out of memory"),
)
"""What libraries say, for lack of a class: OpenVINO, TBB, Python's threads; OpenCV, Pillow."""


INTERNAL_ERROR: Final = "internal-error"
"""Kind of a failure that is none of these: a defect."""


class DermHybridError(Exception):
    """Base of all expected failures."""


class ImageRejectedError(DermHybridError):
    """An upload that cannot be answered; the message says what was expected."""


class ImageEmptyError(ImageRejectedError):
    """The upload has no bytes."""


class ImageTooManyBytesError(ImageRejectedError):
    """The upload is larger than the service accepts."""


class ImageFormatError(ImageRejectedError):
    """The bytes are no image of a supported format."""


class ImageCorruptError(ImageRejectedError):
    """The header is that of an image, the rest cannot be decoded."""


class ImageTooSmallError(ImageRejectedError):
    """The image has too few pixels to be judged."""


class ImageTooManyPixelsError(ImageRejectedError):
    """The image's header announces more pixels than the service decodes."""


class DicomNotPhotographError(ImageRejectedError):
    """The DICOM object is no colour photograph of the kinds that are read."""


class DicomFrameError(ImageRejectedError):
    """It is not said which frame of a picture is meant, or there is no such frame."""


class DicomSupportMissingError(ImageRejectedError):
    """The service is installed without what reads DICOM."""


class ModelNotFoundError(DermHybridError):
    """No loaded model has the requested name."""


class HeatmapUnavailableError(DermHybridError):
    """The model has no heatmap of that method, or the method none of a class."""


class ModelFaultError(DermHybridError):
    """A loaded model answers nothing sensible, or failed its golden example while serving."""


class ServiceBusyError(DermHybridError):
    """As many predictions are in progress as fit.

    Attributes:
        retry_after_seconds: When there may be a place again, by the measured rate.
    """

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class BodyTooSlowError(DermHybridError):
    """A body that came slowly made room for others."""

    def __init__(self, bytes_per_second: float) -> None:
        super().__init__(
            f"The request's body came at {bytes_per_second:,.0f} bytes a second while others "
            "waited for its place. Repeat the request over a faster line, or when fewer ask."
        )


class ServiceStoppingError(DermHybridError):
    """The service is stopping and takes nothing more."""

    def __init__(self) -> None:
        super().__init__("The service is stopping. Repeat the request elsewhere or later.")


class ResourcesExhaustedError(DermHybridError):
    """The machine has no memory, no disk or no descriptor left for the request."""

    def __init__(self) -> None:
        super().__init__(
            "The machine has too little memory, disk or descriptors left for this request, which "
            "may be right as it is. Repeat it later; its operator should look at the machine."
        )


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error that nobody expected says that the machine has nothing left."""
    if isinstance(error, OSError) and error.errno is not None:  # Pillow's have none
        return error.errno in _EXHAUSTED
    return isinstance(error, MemoryError) or any(word in str(error) for word in _LIBRARIES_WORDS)


class DeadlineExceededError(DermHybridError):
    """The time that the caller allows, or the service does, has passed without an answer."""


class RequestTooLongError(DermHybridError):
    """The request's body is longer than anything that it may hold."""


class FhirParametersError(DermHybridError):
    """FHIR Parameters that are not what the operation takes; the message repeats no value."""


class FhirServerError(DermHybridError):
    """The FHIR server, or what gives access to it, did not do what it was asked."""


class AnswerNotFoundError(DermHybridError):
    """No answer is recorded that feedback could be about."""


class AnswerAmbiguousError(DermHybridError):
    """Several recorded answers could be meant."""


class AuditUnavailableError(DermHybridError):
    """An answer could not be recorded, and is not given without its record."""


class AuditDamagedError(DermHybridError):
    """An audit log that must not be continued; the message names the folder."""


class NotAuthenticatedError(DermHybridError):
    """There is no credential, or it is not valid.

    Attributes:
        invalid: Whether there was one.
    """

    def __init__(self, message: str, *, invalid: bool = False) -> None:
        super().__init__(message)
        self.invalid = invalid


class NotAuthorizedError(DermHybridError):
    """The caller is known and may not do this.

    Attributes:
        scope: What it would need.
    """

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class QuotaExceededError(DermHybridError):
    """A caller has asked for more than its share.

    Attributes:
        retry_after_seconds: When it may ask again.
    """

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class IdentityProviderUnavailableError(DermHybridError):
    """The keys that tokens are checked with cannot be had."""


class AccessConfigurationError(DermHybridError):
    """Nobody could be told apart, or anybody could come in; the message names what to set."""


class SettingsRefusedError(DermHybridError):
    """Settings are not taken, or misspelt; a line for each, which has its name and no value."""


class TracingUnavailableError(DermHybridError):
    """Spans are to be sent, and what sends them is not installed."""


class DicomQueueError(DermHybridError):
    """The queue of DICOM jobs cannot be opened, read or written."""


class DicomJobNotFoundError(DermHybridError):
    """There is no DICOM job of the requested identifier."""


class DicomJobNotDeadError(DermHybridError):
    """A DICOM job that was not given up cannot be tried again."""


class DicomDeliveryError(DermHybridError):
    """An archive did not take results."""


class ArtifactError(DermHybridError):
    """A model artifact that must not be served; the message names the file."""


class ArtifactIncompleteError(ArtifactError):
    """A file that the manifest lists is missing or unreadable, or an unlisted one is there."""


class ArtifactDigestError(ArtifactError):
    """A file's SHA-256 differs from the manifest's."""


class ArtifactSignatureError(ArtifactError):
    """Nobody whose signature counts has signed an artifact as it is, or that cannot be told."""


class ManifestError(ArtifactError):
    """`manifest.json` is missing, unreadable, or breaks its schema."""


class GoldenExampleError(ArtifactError):
    """The model does not reproduce the golden example that it was shipped with."""
