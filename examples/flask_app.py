"""A trigger in a Flask app: webhooks arrive at /whereby, and /visits counts them.

WHEREBY_WEBHOOK_SECRET=… gunicorn flask_app:app
"""

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, TriggerSuccess, is_human

visits: dict[str, int] = {}

trigger = Trigger(webhook_triggers={"room.client.joined": is_human})


@trigger.on(TRIGGER_EVENT_SUCCESS)
def count(success: TriggerSuccess) -> None:
    visits[success.room_url] = visits.get(success.room_url, 0) + 1


app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/whereby": trigger.wsgi})  # type: ignore[method-assign]


@app.get("/visits")
def list_visits() -> dict[str, int]:
    return visits
