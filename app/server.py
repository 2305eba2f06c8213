"""The HTTP server: uvicorn, which leaves nobody without an answer when it is told to stop."""

import asyncio
import logging
import signal
import ssl
import sys
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from socket import socket
from time import monotonic
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from app.api.deps import Services
from app.domain.errors import AccessConfigurationError
from app.protocol import bounded_protocol
from app.settings import Settings

SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter while the event loop waits for it; Python's own 5 ms
are most of the time that a rejection may take."""

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn that drains before it closes its port.

    The first SIGTERM or SIGINT: `/health/ready` answers 503 and so does every new prediction,
    while those in progress are answered. The port closes when `drain_seconds` have passed and
    nothing is in progress, or after `shutdown_grace_seconds`; what is in progress then has as long
    again. A second signal closes it now.

    SIGHUP reloads the models and the certificate; one that must not be served leaves everything as
    it was.
    """

    def __init__(self, app: FastAPI, settings: Settings, host: str, port: int) -> None:
        """Configure uvicorn.

        Args:
            app: From `create_app`, with the same settings.
            settings: Of the stop.
            host: Address to listen on.
            port: Port to listen on; 0 lets the system choose.

        Raises:
            AccessConfigurationError: Anybody on the network could use the service, and no setting
                says that this is meant; or the certificate cannot be used.
        """
        check_exposure(settings, host)
        if settings.tls_certificate is not None:
            _require_certificate(settings.tls_certificate, settings.tls_private_key)
        self._protocol = bounded_protocol(settings.client_timeout_seconds)
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                http=self._protocol,
                ws="none",
                forwarded_allow_ips=settings.forwarded_allow_ips,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_private_key,
                timeout_graceful_shutdown=int(settings.shutdown_grace_seconds) + 1,
            )
        )
        self._app, self._settings = app, settings
        self._stop_asked_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal, stop."""
        if self._stop_asked_at is None and self.started:
            # Not remembered as captured: uvicorn raises those again, and the status were not 0.
            self._stop_asked_at = monotonic()
        else:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and from then on reload the models at SIGHUP."""
        sys.setswitchinterval(SWITCH_SECONDS)
        await super().startup(sockets)
        if self.should_exit:
            return  # the application did not start
        if self._settings.operations_port is not None:
            try:
                await self._listen_for_operators(self._settings.operations_port)
            except OSError as error:  # as uvicorn ends where the other port is taken
                logger.error("operations port not opened", extra={"reason": str(error)})  # noqa: TRY400
                await self.shutdown(sockets)
                sys.exit(1)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._begin_to_reload)

    async def _listen_for_operators(self, port: int) -> None:
        config = self.config
        protocol = partial(
            self._protocol,
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self.servers.append(
            await asyncio.get_running_loop().create_server(
                protocol, config.host, port, ssl=config.ssl, backlog=config.backlog
            )
        )
        logger.info("metrics and administration on port %d", port)

    def _begin_to_reload(self) -> None:
        self._read_certificate()
        self._reload = asyncio.create_task(self._reload_models(), name="reload")

    async def _reload_models(self) -> None:
        services: Services = self._app.state.services
        with suppress(Exception):  # the fleet logs it, and the service goes on as it was
            await services.fleet.reload()

    def _read_certificate(self) -> None:
        """Let new connections have a certificate that was renewed, and whose key fits."""
        certificate = self._settings.tls_certificate
        if self.config.ssl is None or certificate is None:
            return
        try:
            # On a context of its own first: loading replaces certificate and key one by one.
            _try_certificate(certificate, self._settings.tls_private_key)
            self.config.ssl.load_cert_chain(certificate, self._settings.tls_private_key)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            logger.error("certificate not read", extra={"reason": str(error)})  # noqa: TRY400

    async def on_tick(self, counter: int) -> bool:
        """Every tenth of a second: look whether the drain is over."""
        if self._stop_asked_at is not None and not self.should_exit:
            services: Services = self._app.state.services
            services.begin_to_stop()
            seconds = monotonic() - self._stop_asked_at
            drained = seconds >= self._settings.drain_seconds and not services.num_in_progress
            self.should_exit = drained or seconds >= self._settings.shutdown_grace_seconds
        return await super().on_tick(counter)


def _try_certificate(certificate: Path, private_key: Path | None) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key)


def _require_certificate(certificate: Path, private_key: Path | None) -> None:
    try:
        _try_certificate(certificate, private_key)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise AccessConfigurationError(
            "There is no TLS: TLS_CERTIFICATE or TLS_PRIVATE_KEY cannot be used "
            f"({type(error).__name__}: {error.args[-1]})."
        ) from error


def check_exposure(settings: Settings, host: str) -> None:
    """Refuse to be open to the network where no setting says that this is meant.

    Raises:
        AccessConfigurationError: There are no credentials, and the address is not this machine's
            own; or the same of the Storage SCP and who may call it.
    """
    _check_dicom_exposure(settings)
    if settings.has_credentials or settings.authentication == "off" or _is_loopback(host):
        return
    raise AccessConfigurationError(
        f"The service would listen on {host}, for others to reach, and nobody is told apart. Set "
        "API_KEYS_FILE (`dermhybrid keys create` makes a key) or OAUTH_ISSUER; or say that this is "
        "meant, with AUTHENTICATION=off."
    )


def _check_dicom_exposure(settings: Settings) -> None:
    callers_are_known = settings.dicom_callers or settings.dicom_tls_client_ca is not None
    if settings.dicom_listen_port is None or _is_loopback(settings.dicom_listen_host):
        return
    if not callers_are_known and not settings.dicom_listen_open:
        raise AccessConfigurationError(
            f"The Storage SCP would listen on {settings.dicom_listen_host}, for others to reach, "
            "and take photographs from anybody. Name the AE titles that may call in "
            "DICOM_CALLING_AES, or let them show certificates (DICOM_TLS_CERTIFICATE, "
            "DICOM_TLS_PRIVATE_KEY, DICOM_TLS_CLIENT_CA); or say that this is meant, with "
            "DICOM_LISTEN_OPEN=true."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
