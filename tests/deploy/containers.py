"""The container image: its base, building it with buildah, running it with podman as compose says.

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


def compose_service() -> dict[str, Any]:
    """What docker-compose.yml says of the service."""
    document = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
    return dict(document["services"]["dermhybrid"])


def build_image(scratch: Path) -> str:
    """Build the Dockerfile as `IMAGE`.

    Args:
        scratch: An empty folder for a base image that has to be made.

    Returns:
        Where the base image came from.
    """
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    (base,) = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    base = f"docker.io/library/{base}"
    build = ["buildah", "bud", "--isolation", "chroot", "--network", "host", "--pull-never"]
    build += ["--format", "docker", "--layers", "--volume", f"{AUTHORITIES}:{AUTHORITIES}:ro"]
    build += ["--tag", IMAGE, str(REPOSITORY)]
    if _has(base):
        _run(build)
        return f"{base}, as this machine had it"
    try:
        _run(["buildah", "pull", "--quiet", base], timeout=PULL_SECONDS)
    except (ProgramError, subprocess.TimeoutExpired):
        if not _has(STAND_IN):
            _make_stand_in(base, scratch)
        _run(["buildah", "tag", STAND_IN, base])
        try:
            _run(build)
        finally:
            _run(["buildah", "rmi", base])  # the name alone
        return f"Debian's own Python from {MIRROR}: {base} could not be pulled"
    _run(build)
    return f"{base}, pulled"


def _make_stand_in(base: str, scratch: Path) -> None:
    """Debian with its own Python, in place of a base that cannot be pulled.

    Its pip is told to install into the system, as that of the base does.
    """
    _, python, _, suite = re.split(r"[:-]", base)
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
def running_container(volume: str, environment: dict[str, str], port: int) -> Iterator[str]:
    """Run `IMAGE` under every limit that docker-compose.yml sets, on this machine's network.

    Args:
        volume: Name of the volume for the records of answers.
        environment: Settings beside those of docker-compose.yml.
        port: Of this machine's own address, that it listens on.

    Yields:
        The container's id; it is removed in the end.
    """
    said = compose_service()
    settings = {**said["environment"], **environment}
    (records,) = [mount.split(":")[1] for mount in said["volumes"]]
    options = ["--detach", "--pull", "never", "--network", "host"]
    options += ["--volume", f"{volume}:{records}"]
    options += ["--memory", said["mem_limit"], "--pids-limit", str(said["pids_limit"])]
    options += ["--stop-timeout", said["stop_grace_period"].removesuffix("s")]
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
    serve = ["dermhybrid", "serve", "--host", "127.0.0.1", "--port", str(port)]
    container = podman("run", *options, IMAGE, *serve)
    try:
        yield container
    finally:
        podman("rm", "--force", container)


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
