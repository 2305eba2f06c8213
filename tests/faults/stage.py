"""Where faults are tried, and the services that are run there."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import aiohttp

from tests.faults.injectors import small_disk
from tests.faults.pictures import NUM_LESIONS, huge, large, valid
from tests.faults.service import CLIENT_TIMEOUT, Service

DISK_BYTES: Final = 256 * 1024 * 1024
CLIENT_SECONDS: Final = 180.0
"""A caller that has waited for so long counts as lost."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where faults are tried.

    Attributes:
        models: Folder of the artifacts, a copy that faults may damage.
        folder: For what a fault leaves behind.
        logs: Where the services' logs are kept.
        quick: Few requests and short times, to show that a fault is survived at all.
    """

    models: Path
    folder: Path
    logs: Path
    quick: bool = False

    def scale(self, full: float, quick: float) -> float:
        """A number of the full form, or of the quick one."""
        return quick if self.quick else full

    @asynccontextmanager
    async def serve(
        self, name: str, headers: Mapping[str, str] = MappingProxyType({}), **settings: str
    ) -> AsyncIterator[Service]:
        """Run the service for one fault.

        Args:
            name: Of a folder for its log, its records and its temporary files.
            headers: Of every request.
            settings: Beside the usual ones.
        """
        for make in (large, huge):  # now, for it takes seconds in which nobody would be served
            make(0)
        # Not kept for so long that the service closes what is about to be used.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=CLIENT_TIMEOUT / 4)
        anew = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=CLIENT_SECONDS)
        with small_disk(self.folder / name, DISK_BYTES) as own_disk:
            settings = {"MODELS_DIR": str(self.models), **settings}
            service = Service(self.folder / name, settings, own_disk=own_disk)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as service.session,
                aiohttp.ClientSession(connector=anew, timeout=timeout) as service.strangers,
            ):
                service.headers = dict(headers)
                await service.start()
                try:
                    for number in range(NUM_LESIONS):  # the truth, and every kernel at work once
                        await service.ask(valid(number))
                    service.ledger.check_truths_differ(NUM_LESIONS)
                    yield service
                finally:
                    await asyncio.to_thread(service.stop)
                    self._keep_logs(service.folder)

    def _keep_logs(self, folder: Path) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        for log in folder.glob("service-*.log"):
            shutil.copy(log, self.logs / f"{folder.name}-{log.name}")
