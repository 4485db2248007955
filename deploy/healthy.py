"""Tell by the exit code whether the trigger in this container lives: what its HEALTHCHECK runs."""

import os
import sys
from http.client import HTTPConnection

port = os.environ.get("WHEREBY_TRIGGER_PORT") or os.environ.get("PORT") or "8080"

# Not urllib, which would ask a proxy that the environment names.
trigger = HTTPConnection("127.0.0.1", int(port), timeout=4)
trigger.request("GET", "/livez")
sys.exit(trigger.getresponse().status != 200)
