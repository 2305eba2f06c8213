"""Headers of a request, as ASGI gives them."""

from starlette.types import Scope


def headers_of(scope: Scope, name: str) -> list[str]:
    """The values of all headers of a name, which is in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]


def header_of(scope: Scope, name: str) -> str | None:
    """The first of them; None where there is none."""
    return next(iter(headers_of(scope, name)), None)
