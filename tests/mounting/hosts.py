"""The ways to mount a trigger in a host app, each with the path that then accepts deliveries."""

from collections.abc import Callable

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from whereby_trigger import Trigger

App = Starlette
Way = Callable[[Trigger], tuple[App, str]]


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello from the host")


def fastapi_add_route(trigger: Trigger) -> tuple[App, str]:
    app = FastAPI(lifespan=trigger.lifespan)
    app.add_route("/hello", hello)
    app.add_route("/whereby", trigger.asgi)
    return app, "/whereby"


def fastapi_mount(trigger: Trigger) -> tuple[App, str]:
    app = FastAPI(lifespan=trigger.lifespan)
    app.add_route("/hello", hello)
    app.mount("/whereby", trigger.asgi)
    return app, "/whereby/"


def fastapi_router(trigger: Trigger) -> tuple[App, str]:
    router = APIRouter()
    router.mount("/whereby", trigger.asgi)
    app = FastAPI(lifespan=trigger.lifespan)
    app.add_route("/hello", hello)
    app.include_router(router)
    return app, "/whereby/"


def starlette_route(trigger: Trigger) -> tuple[App, str]:
    routes = [Route("/hello", hello), Route("/hooks/whereby", trigger.asgi)]
    return Starlette(lifespan=trigger.lifespan, routes=routes), "/hooks/whereby"


def starlette_nested_mounts(trigger: Trigger) -> tuple[App, str]:
    routes = [Route("/hello", hello), Mount("/hooks", routes=[Mount("/whereby", trigger.asgi)])]
    return Starlette(lifespan=trigger.lifespan, routes=routes), "/hooks/whereby/"


def starlette_behind_middleware(trigger: Trigger) -> tuple[App, str]:
    async def watch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        await request.body()
        response = await call_next(request)
        response.headers["x-watched"] = "yes"
        return response

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=watch)]
    routes = [Route("/hello", hello), Route("/whereby", trigger.asgi)]
    return Starlette(lifespan=trigger.lifespan, routes=routes, middleware=middleware), "/whereby"


WAYS: tuple[Way, ...] = (
    fastapi_add_route,
    fastapi_mount,
    fastapi_router,
    starlette_route,
    starlette_nested_mounts,
    starlette_behind_middleware,
)
