"""An assistant as the examples start one: it reports to the test, stays in the room until asked to leave, and ends.

Run as `python stand_in.py PORT`; the test's side of it is `Assistants`.
"""

import json
import os
import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as test:
    report = {
        "room_url": os.environ["WHEREBY_ROOM_URL"],
        "key": os.environ.get("ASSISTANT_KEY"),
        "knows_secret": any(name.startswith(("WHEREBY_WEBHOOK_SECRET", "WHEREBY_TRIGGER_")) for name in os.environ),
    }
    test.sendall(json.dumps(report).encode() + b"\n")
    told = test.recv(1)
    sys.exit(told[0] if told else 1)
