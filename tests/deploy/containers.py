"""Container images: made with buildah, and run with podman as docker-compose.yml says.

Debian packages: buildah, podman, runc and, where the registry of the base image is out of reach,
debootstrap. Needs root, as `buildah` and `podman` without it need a set-up of their own.
"""

import json
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.conftest import REPOSITORY

PACKAGES: Final = ("buildah", "podman", "runc", "debootstrap")
IMAGE: Final = "localhost/dermhybrid:test"
ARCHIVE: Final = "localhost/dermhybrid-orthanc:test"
STAND_IN: Final = "localhost/dermhybrid-base"
"""Of a base image that cannot be pulled; it has that one's name only while the image is built."""

AUTHORITIES: Final = "/etc/ssl/certs"
"""Of certificates: this machine's, for a network whose proxy looks into TLS."""
MIRROR: Final = "http://deb.debian.org/debian"
PULL_SECONDS: Final = 60


class ProgramError(RuntimeError):
    """A program failed; the message has what it said."""


def missing_programs() -> list[str]:
    """Those of `PACKAGES` that this machine lacks."""
    return [name for name in PACKAGES if shutil.which(name) is None]


def compose_service(name: str = "dermhybrid") -> dict[str, Any]:
    """What docker-compose.yml says of one of its services."""
    document = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
    return dict(document["services"][name])


def compose_volumes(name: str = "dermhybrid") -> dict[str, str]:
    """Its named volumes, and where it has them."""
    mounts = (mount.split(":") for mount in compose_service(name)["volumes"])
    return {source: target for source, target, *_ in mounts if "/" not in source}


def build_image(scratch: Path, image: str = IMAGE, folder: Path = REPOSITORY) -> str:
    """Build a Dockerfile.

    Args:
        scratch: An empty folder for a base image that has to be made.
        image: Its name.
        folder: With the Dockerfile, and what it copies.

    Returns:
        Where the base image came from.
    """
    dockerfile = (folder / "Dockerfile").read_text(encoding="utf-8")
    (base,) = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    base = f"docker.io/library/{base}"
    build = ["buildah", "bud", "--isolation", "chroot", "--network", "host", "--pull-never"]
    build += ["--format", "docker", "--layers", "--volume", f"{AUTHORITIES}:{AUTHORITIES}:ro"]
    build += ["--tag", image, str(folder)]
    if _has(base):
        _run(build)
        return f"{base}, as this machine had it"
    try:
        _run(["buildah", "pull", "--quiet", base], timeout=PULL_SECONDS)
    except (ProgramError, subprocess.TimeoutExpired):
        if not _has(STAND_IN):
            _make_stand_in(scratch)
        _run(["buildah", "tag", STAND_IN, base])
        try:
            _run(build)
        finally:
            _run(["buildah", "rmi", base])  # the name alone
        return f"Debian's own packages from {MIRROR}: {base} could not be pulled"
    _run(build)
    return f"{base}, pulled"


def _make_stand_in(scratch: Path) -> None:
    """Debian with its own Python, in place of bases that cannot be pulled.

    Its pip is told to install into the system, as that of the Python image does.
    """
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    python, suite = re.findall(r"^FROM python:(\S+)-slim-(\S+)", dockerfile, re.MULTILINE)[0]
    included = f"--include=python{python},python3-pip,ca-certificates"
    _run(["debootstrap", "--variant=minbase", included, suite, str(scratch), MIRROR])
    (scratch / "usr/bin/python").symlink_to(f"python{python}")
    container = _run(["buildah", "from", "scratch"])
    _run(["buildah", "add", "--quiet", container, str(scratch), "/"])
    _run(["buildah", "config", "--env", "PIP_BREAK_SYSTEM_PACKAGES=1", container])
    _run(["buildah", "commit", "--quiet", "--rm", container, STAND_IN])


def _has(image: str) -> bool:
    images = json.loads(_run(["buildah", "images", "--json"]))
    names = {name for found in images for name in found.get("names") or ()}
    return bool(names & {image, f"{image}:latest"})


@contextmanager
def running_container(
    volumes: str,
    environment: dict[str, str],
    command: Sequence[str],
    *,
    service: str = "dermhybrid",
    image: str = IMAGE,
) -> Iterator[str]:
    """Run an image under every limit that docker-compose.yml sets, on this machine's network.

    Args:
        volumes: What the names of its volumes begin with.
        environment: Settings beside those of docker-compose.yml.
        command: In place of the image's own; that one, where it is empty.
        service: Its name in docker-compose.yml.
        image: That is run.

    Yields:
        The container's id; it is removed in the end, its volumes are not.
    """
    said = compose_service(service)
    settings = {**said["environment"], **environment}
    options = ["--detach", "--pull", "never", "--network", "host"]
    for name, target in compose_volumes(service).items():
        options += ["--volume", f"{volumes}-{name}:{target}"]
    options += ["--memory", said["mem_limit"], "--pids-limit", str(said["pids_limit"])]
    options += ["--stop-timeout", said.get("stop_grace_period", "10s").removesuffix("s")]
    if said["read_only"]:
        options += ["--read-only", "--read-only-tmpfs=false"]
    options += [f"--tmpfs={mount}" for mount in said["tmpfs"]]
    options += [f"--cap-drop={capability}" for capability in said["cap_drop"]]
    options += [f"--security-opt={option.split(':')[0]}" for option in said["security_opt"]]
    options += [f"--env={name}={value}" for name, value in settings.items()]
    # podman asks for more than a machine may grant.
    for name, limit in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        most = resource.getrlimit(limit)[1]
        value = 4096 if most == resource.RLIM_INFINITY else min(most, 4096)
        options += ["--ulimit", f"{name}={value}:{value}"]
    container = podman("run", *options, image, *command)
    try:
        yield container
    finally:
        podman("rm", "--force", container)


def remove_volumes(volumes: str, service: str = "dermhybrid") -> None:
    """Those that `running_container` made."""
    names = [f"{volumes}-{name}" for name in compose_volumes(service)]
    podman("volume", "rm", "--force", *names)


def podman(*arguments: str) -> str:
    """What podman prints."""
    how = ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    return _run(["podman", *how, *arguments])


def _run(command: Sequence[str], timeout: float | None = None) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        raise ProgramError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout.strip()
