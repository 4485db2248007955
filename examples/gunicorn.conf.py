"""Start the trigger of flask_app.py with each worker of gunicorn, and drain it with the worker.

WHEREBY_WEBHOOK_SECRET=… gunicorn --config gunicorn.conf.py flask_app:app
"""

from typing import Any


def post_worker_init(worker: Any) -> None:
    """Start the trigger, so that what is undecided does not wait for a request."""
    from flask_app import trigger

    trigger.wsgi.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Drain the trigger."""
    from flask_app import trigger

    trigger.wsgi.stop()
