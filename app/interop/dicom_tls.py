"""TLS of the Storage SCP, 1.2 or newer, with or without client keys."""

import ssl
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Any, Final

from app.domain.errors import AccessConfigurationError

HANDSHAKE_SECONDS: Final = 30.0
"""For a caller to take or give a piece, the handshake's included."""


class _LazyContext(ssl.SSLContext):
    """Leaves the handshake to the association's own thread.

    pynetdicom wraps a connection in the thread that accepts all of them, without any time limit:
    one caller that connects and says nothing would keep everybody else out.
    """

    def wrap_socket(self, sock: socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As every context's; the first read or write shakes hands."""
        sock.settimeout(HANDSHAKE_SECONDS)
        return super().wrap_socket(sock, *args, **{**kwargs, "do_handshake_on_connect": False})


_NO_FAILURE: Final = (
    # Who only looks whether the port is open; the end of a connection; not yet.
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
)


def report_failures(context: ssl.SSLContext, report: Callable[[str], object]) -> None:
    """Tell of callers that do not get through TLS, which pynetdicom keeps to itself.

    Args:
        context: Of the connections that are accepted from now on.
        report: Called in the connection's thread with OpenSSL's reason, of a bounded set.
    """

    class Reporting(ssl.SSLSocket):
        def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002
            try:
                return super().read(len, buffer)
            except _NO_FAILURE:
                raise
            except ssl.SSLError as error:
                report(error.reason or "unknown")
                raise

    context.sslsocket_class = Reporting


def certificate_of(connection: socket | None) -> bytes | None:
    """The certificate that a caller was let in by, in DER; None where none was asked for.

    Args:
        connection: None where it has ended.
    """
    return (
        connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
    )


def listen_with_tls(certificate: Path, private_key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """A context for `StorageListener`: TLS 1.2 or newer.

    Args:
        certificate: PEM file of the certificate and its chain.
        private_key: PEM file of its key.
        client_ca: PEM file of the authorities whose clients may call; None for any client.

    Raises:
        AccessConfigurationError: A file cannot be read, or they do not fit together.
    """
    context = _LazyContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, private_key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise AccessConfigurationError(
            "The Storage SCP has no TLS: DICOM_TLS_CERTIFICATE, DICOM_TLS_PRIVATE_KEY or "
            f"DICOM_TLS_CLIENT_CA cannot be used ({type(error).__name__}: {error.args[-1]})."
        ) from error
    return context
