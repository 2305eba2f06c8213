"""The door before everything: who is it, may it do this, has it asked for too much (ADR-0022).

A route says what it needs, by `dependencies=[requires(Scope.PREDICT)]` at itself or its router.
What says nothing and is not among `PUBLIC_PATHS` stops the service from starting.
"""

from collections.abc import Container
from typing import Final, NamedTuple

from fastapi import FastAPI, Request, Security
from fastapi.params import Depends as Dependency
from fastapi.params import Security as Requirement
from fastapi.routing import RouteContext, iter_route_contexts
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.authenticator import Authenticator
from app.access.quota import Quota
from app.access.scopes import OPERATIONS, Caller
from app.access.scopes import Scope as Permission
from app.api.errors import domain_problem, problem
from app.api.observation import note_route
from app.domain.errors import DermHybridError, NotAuthorizedError
from app.logs import caller

PUBLIC_PATHS: Final = (
    "/",
    "/viewer/settings.json",
    "/viewer/{path:path}",
    "/smart",
    "/smart/launch",
    "/smart/settings.json",
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/fhir/metadata",
    "/fhir/OperationDefinition/{name}",
    "/cds-services",
)
"""Path templates of what anybody may read: nothing of a picture, a caller or a measurement."""

OPERATORS_PREFIXES: Final = ("/metrics", "/admin/", "/health/")
"""How all paths begin that are on the operators' port, where they have one."""

_PUBLIC: Final = tuple(compile_path(path)[0] for path in PUBLIC_PATHS)
_CALLER_KEY: Final = "dermhybrid.caller"


class Guard:
    """Let nobody past who is not known, before a byte of the body is read."""

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        quota: Quota | None,
        operations_port: int | None,
        counted: Container[str],
    ) -> None:
        """Wrap an application.

        Args:
            app: Answers who was let in; its routes ask `requires`.
            authenticator: Tells callers apart.
            quota: Of each caller; None for no bound.
            operations_port: Where nothing but `OPERATORS_PREFIXES` is; None for no such port.
            counted: Paths whose refusals are counted under them, and not as of no route.
        """
        self._app, self._authenticator, self._quota = app, authenticator, quota
        self._operations_port, self._counted = operations_port, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        elsewhere = (
            self._operations_port is not None
            and scope["server"][1] == self._operations_port
            and not scope["path"].startswith(OPERATORS_PREFIXES)
        )
        if not elsewhere and is_public(scope["path"]):
            await self._app(scope, receive, send)
            return
        if elsewhere or not scope["path"].isprintable():
            # Routes match a path with a line break at its end; doors and bounds go by the path.
            await problem(404, "not-found", "Not Found", "There is no such path.")(
                scope, receive, send
            )
            return
        authorization = dict(scope["headers"]).get(b"authorization")
        try:
            found = await self._authenticator.identify(
                authorization and authorization.decode("latin-1"),
                address=caller.get(),
            )
            if self._quota is not None:
                self._quota.take(found.id)
        except DermHybridError as error:
            if scope["path"] in self._counted:
                note_route(scope)
            await domain_problem(error)(scope, receive, send)
            return
        scope[_CALLER_KEY] = found
        caller.set(found.id)
        await self._app(scope, receive, send)


def is_public(path: str) -> bool:
    """Whether anybody may have what is at a path, or at a path template."""
    return any(pattern.fullmatch(path) for pattern in _PUBLIC)


def get_caller(request: Request) -> Caller:
    """Whoever sent a request that is not public."""
    found: Caller = request.scope[_CALLER_KEY]
    return found


class _ScopeCheck(HTTPBearer):
    """What OpenAPI documents as a bearer's credential, and `Guard` has read already."""

    async def __call__(  # type: ignore[override]  # FastAPI gives what a signature asks for
        self, request: Request, required: SecurityScopes
    ) -> None:
        for scope in required.scopes:
            port = request.app.state.services.operations_port
            if port is not None and (scope in OPERATIONS) != (request.scope["server"][1] == port):
                raise HTTPException(404)  # it is on the other port
            if scope not in get_caller(request).scopes:
                raise NotAuthorizedError(
                    f"Your credential lacks the scope {scope!r}, which this request needs.", scope
                )


_check = _ScopeCheck(
    auto_error=False,
    scheme_name="credential",
    description="An API key, or an OAuth 2.0 access token of the service's issuer.",
)


def requires(scope: Permission) -> Requirement:
    """What a route or a router asks of its callers, for its list of dependencies.

    The route answers 403 to whoever lacks it, and 404 on a port that it does not belong to.
    """
    requirement: Requirement = Security(_check, scopes=[scope.value])
    return requirement


class Requirements(NamedTuple):
    """What a route asks of its callers.

    Attributes:
        methods: It answers; none for an application that is mounted.
        path: Its template.
        scope: What they need; None where it is public.
    """

    methods: frozenset[str]
    path: str
    scope: Permission | None


def check_requirements(app: FastAPI) -> list[Requirements]:
    """What every route of an application asks of its callers.

    Raises:
        RuntimeError: One says nothing, or asks for something and is public: it was forgotten, and
            the service must not start.
    """
    return [_requirements(route) for route in iter_route_contexts(app.routes)]


def _requirements(route: RouteContext) -> Requirements:
    path = route.path or "/"
    dependencies: list[Dependency] = getattr(route, "dependencies", [])
    scopes = [
        Permission(scope)
        for dependency in dependencies
        if isinstance(dependency, Requirement) and dependency.dependency is _check
        for scope in dependency.scopes or ()
    ]
    if len(scopes) != (0 if is_public(path) else 1):
        raise RuntimeError(
            f"{path} must require one scope, by dependencies=[requires(Scope...)], or be among "
            f"PUBLIC_PATHS and require none; it requires {scopes}."
        )
    return Requirements(frozenset(route.methods or ()), path, scopes[0] if scopes else None)
