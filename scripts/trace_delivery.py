"""Trace one delivery through the package, from the socket to the predicate and back to its commit and its log line.

    .venv/bin/python scripts/trace_delivery.py

It serves a trigger on SQLite, delivers one webhook to warm up and one to trace, and prints every call and a summary.
"""

import asyncio
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from msgspec import Struct

from whereby_trigger import Trigger
from whereby_trigger.decide import dispatcher
from whereby_trigger.deliveries import DeliveryLog
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import sign

SECRET = "a secret for the trace"  # noqa: S105
PACKAGE = str(Path(sys.modules["whereby_trigger"].__file__ or "").parent)

STAGES = {
    "receive": "receive",
    "store": "store",
    "store/records": "",
    "store/protocol": "",
    "decide": "decide",
    "decide/dispatcher": "dispatch",
    "decide/pending": "",
    "replica": "replica",
}
"""The stage of each module; one without a stage serves its caller, or is data that stages hand over."""

WRITER = "whereby-trigger-store"
BACKGROUND = {"_look_for_changes", "_give_up_on_late", "on_tick"}
"""Functions that run whether a delivery comes or not."""


class Call(Struct, frozen=True):
    """Describe one call: what was called, where, how deep, and the stage that it entered, "" if none."""

    thread: str
    depth: int
    module: str
    function: str
    entered: str


class Trace(Struct):
    """Hold the calls of one delivery, `asked` of them up to the call of the predicate."""

    calls: list[Call]
    asked: int

    @property
    def forward(self) -> list[Call]:
        """The calls from the socket to the predicate."""
        return self.calls[: self.asked]

    @property
    def modules(self) -> list[str]:
        """The modules of these calls, in order of first entry."""
        return list(dict.fromkeys(call.module for call in self.forward))

    def stages(self, calls: list[Call]) -> list[str]:
        """List the stages that some calls enter, without repeats in a row."""
        entered = [call.entered for call in calls if call.entered]
        return [stage for stage, before in zip(entered, ["", *entered], strict=False) if stage != before]

    def in_the_loop(self) -> "Trace":
        """Return the trace without the store's thread, which does this once for all that came in a turn."""
        calls = [call for call in self.calls if call.thread != WRITER]
        return Trace(calls, sum(call.thread != WRITER for call in self.forward))

    @property
    def entered_again(self) -> list[str]:
        """The stages that are entered again after they were left on the way forward, except for the answer."""
        stages = self.stages(self.forward)
        if stages[:3] == ["receive", "store", "receive"]:
            del stages[2]
        return [stage for place, stage in enumerate(stages) if stage in stages[:place]]


class Tracer:
    """Record calls within the package, in any thread, from the socket's data to the line in the log."""

    def __init__(self) -> None:
        self.armed = False
        self.done = asyncio.Event()
        self._recording = False
        self._known: dict[int, FrameType] = {}
        self._begun_before: dict[int, FrameType] = {}
        self._calls: list[Call] = []
        self._asked = 0

    @property
    def trace(self) -> Trace:
        return Trace(self._calls, self._asked)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_name
        if event == "return" and frame.f_code is DeliveryLog.decided.__code__:
            self._recording = False
            self.done.set()
        if event != "call":
            return
        if name == "asked_in_the_trace" and self._recording:
            self._asked = len(self._calls)
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if not self._recording:
            # A coroutine or a thread that is already running does not belong to a delivery.
            self._begun_before[id(frame)] = frame
            if not (self.armed and name == "data_received"):
                return
            self.armed, self._recording = False, True
        elif id(frame) in self._begun_before or id(frame) in self._known:
            return
        self._record(frame)

    def _record(self, frame: FrameType) -> None:
        self._known[id(frame)] = frame
        stack = _stack_of(frame)
        names = {each.f_code.co_name for each in stack}
        loops = id(stack[-1]) in self._begun_before and threading.current_thread() is threading.main_thread()
        if names & BACKGROUND or (loops and stack[-1].f_code.co_name != "data_received"):
            return
        stage = _stage_of(frame)
        caller = next((_stage_of(each) for each in stack[1:] if _stage_of(each)), "")
        entered = stage if stage and stage != caller else ""
        thread, depth = threading.current_thread().name, len(stack) - 1
        self._calls.append(Call(thread, depth, _module_of(frame), frame.f_code.co_qualname, entered))


def _stack_of(frame: FrameType | None) -> list[FrameType]:
    stack = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            stack.append(frame)
        frame = frame.f_back
    return stack


def _module_of(frame: FrameType) -> str:
    return frame.f_code.co_filename.removeprefix(PACKAGE + "/").removesuffix(".py")


def _stage_of(frame: FrameType) -> str:
    module = _module_of(frame)
    return STAGES.get(module, STAGES.get(module.split("/")[0], ""))


async def traced(folder: Path) -> Trace:
    """Serve a trigger with its store in a folder, and trace its second delivery."""
    # Nobody looks at the store meanwhile: that belongs to no delivery.
    dispatcher.TAKEOVER = dispatcher.REREAD = 3600.0
    trigger = Trigger(store=f"sqlite:///{folder}/trace.db", secret=SECRET, port=0, host="127.0.0.1")

    @trigger.when("room.client.joined")
    def asked_in_the_trace() -> bool:
        return True

    tracer = Tracer()
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    try:
        async with trigger:
            reader, writer = await asyncio.open_connection("127.0.0.1", trigger.port)
            for tracer.armed in (False, True):
                body = webhook("room.client.joined").raw
                signature = sign(SECRET, body, int(time.time()))
                head = f"POST / HTTP/1.1\r\nhost: x\r\nwhereby-signature: {signature}\r\ncontent-length: {len(body)}"
                writer.write(f"{head}\r\n\r\n".encode() + body)
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.wait_for(tracer.done.wait(), 10)
                tracer.done.clear()
                await _is_at_rest(trigger)
            writer.close()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return tracer.trace


async def _is_at_rest(trigger: Trigger) -> None:
    """Wait until what a start does in the store is done: each write comes after those before it."""
    replica = trigger._lifecycle._replica
    if replica is None:
        raise RuntimeError("the trigger does not run")
    pings = 0
    while replica.dispatcher.behind or pings < 5:
        await replica.store.ping(time.time())
        pings += 1


def main() -> None:
    """Print a delivery's trace."""
    logging.getLogger("whereby_trigger").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        trace = asyncio.run(traced(Path(folder)))
    for number, call in enumerate(trace.calls):
        if number == trace.asked:
            print("-- the predicate is called --")
        print(f"{call.entered:8} {'  ' * call.depth}{call.module} {call.function}")
    print()
    for name, part in (("to the predicate", trace), ("of these in the loop", trace.in_the_loop())):
        print(f"{name}: {len(part.forward)} calls in {len(part.modules)} modules: {', '.join(part.modules)}")
    print(f"stages: {' > '.join(trace.stages(trace.forward))} > the predicate")
    print(f"and back: {' > '.join(trace.stages(trace.calls[trace.asked :]))} > the log")
    print(f"entered again after it was left, but for the answer: {', '.join(trace.entered_again) or 'none'}")


if __name__ == "__main__":
    main()
