"""Exit with 0 if the trigger in this container is alive: the HEALTHCHECK runs this."""

import os
import sys
from http.client import HTTPConnection

port = os.environ.get("WHEREBY_TRIGGER_PORT") or os.environ.get("PORT") or "8080"

# urllib would use a proxy that the environment names.
trigger = HTTPConnection("127.0.0.1", int(port), timeout=4)
trigger.request("GET", "/livez")
sys.exit(trigger.getresponse().status != 200)
