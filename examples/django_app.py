"""A trigger in a Django app: webhooks arrive at /whereby, and /visits counts them.

WHEREBY_WEBHOOK_SECRET=… gunicorn django_app:application
WHEREBY_WEBHOOK_SECRET=… uvicorn django_app:asgi_application
"""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, TriggerSuccess, is_human

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="an example's own")  # noqa: S106

visits: dict[str, int] = {}

trigger = Trigger(path="/whereby", webhook_triggers={"room.client.joined": is_human})


@trigger.on(TRIGGER_EVENT_SUCCESS)
def count(success: TriggerSuccess) -> None:
    visits[success.room_url] = visits.get(success.room_url, 0) + 1


def list_visits(request: HttpRequest) -> JsonResponse:
    return JsonResponse(visits)


urlpatterns = [path("visits", list_visits)]
django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Send /whereby to the trigger, and everything else to Django."""
    app = trigger.wsgi if environ["PATH_INFO"] == "/whereby" else django
    return app(environ, start_response)


# Django's ASGI app has no lifespan, which a trigger needs: Starlette has one.
asgi_application = Starlette(
    lifespan=trigger.lifespan,
    routes=[Route("/whereby", trigger.asgi), Mount("/", get_asgi_application())],  # type: ignore[arg-type]
)
