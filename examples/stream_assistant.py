"""An assistant as a process that follows its room: it keeps the minutes from the lines on its stdin.

stream_trigger.py starts it with `stdin="stream"`. It needs nothing but Python, and leaves when nobody is left,
or at the end of file.
"""

import json
import signal
import sys
from collections import Counter

signal.signal(signal.SIGTERM, lambda *_: None)  # the end of file says the same, also if the trigger is killed
heard: Counter[str] = Counter()
why = "the end of file"
for line in sys.stdin:
    match json.loads(line):
        case {"roomUrl": room_url, "attempt": attempt}:
            print(f"joining {room_url}, attempt {attempt}", flush=True)
        case {"event": "webhook", "webhook": {"type": type}}:
            heard[type] += 1
        case {"event": "presence", "humans": 0}:
            why = "nobody is left"
            break
        case {"event": "presence", "humans": humans, "since": since}:
            print(f"people here: {humans}, since {since}", flush=True)
        case {"event": "dropped", "count": count}:
            print(f"too slow: {count} webhooks were dropped", flush=True)
        case {"event": "leave", "reason": reason}:
            why = reason
print(f"leaving: {why}; heard {dict(heard) or 'nothing'}")
