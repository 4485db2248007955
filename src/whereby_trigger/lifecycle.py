"""The life of a trigger: it opens, serves, drains and closes, by one table of phases.

`LIFE` says which phase follows which on what; what is not listed changes nothing. A phase is entered where its cause
is: in a signal's handler, in the thread that calls `stop()`, or in the loop. The loop acts on it when it comes to it,
which user code may delay, so the time by which the process must have ended is set where the phase is entered.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from whereby_trigger import logs, process
from whereby_trigger.clock import boot_time
from whereby_trigger.config import Resolved, Settings, check_exposure, check_inspector
from whereby_trigger.errors import ConfigError, LifecycleError
from whereby_trigger.loggers import own_logger
from whereby_trigger.metrics import METRICS_PATH, only_at
from whereby_trigger.receive import Endpoint, bind
from whereby_trigger.replica import Replica
from whereby_trigger.store import Store
from whereby_trigger.store.factory import spill_file_for, store_for

if TYPE_CHECKING:
    from whereby_trigger.inspector import Inspector
    from whereby_trigger.receive.server import Server

logger = own_logger("whereby_trigger")

INTERRUPT_DRAIN = 10.0
"""The most seconds that a drain waits for listeners after SIGINT: somebody sits at the terminal.

Assistants, which may be in a meeting of hours, are told to leave at once.
"""

LAST_DECISIONS = 1.0
"""Seconds that are left for decisions once the drain is over."""

GIVE_UP_START_WITHIN = 2.0
"""Seconds that a start which a signal has given up may take to end: a thread may still wait for a lock."""

SAY_EVERY = 5.0
"""Seconds between lines that say how long a drain still takes, at first; a terminal shows each second."""

AGAIN = {signal.SIGINT: "press Ctrl-C again to end now", signal.SIGTERM: "a second signal ends it now"}

BLOCKED = "your code holds up the event loop"

UNSIGNED = {
    False: "UNSIGNED: no secret is set, so any program on this machine can start assistants. Requests that show that a "
    "web page, a proxy or a tunnel sent them are refused, but not every proxy shows it: set WHEREBY_WEBHOOK_SECRET "
    "before anything forwards to this port",
    True: "UNSIGNED: no secret is set and unsigned deliveries are allowed, so anybody who reaches this address can "
    "start assistants: set WHEREBY_WEBHOOK_SECRET",
}
"""What a start without a secret says, by whether unsigned deliveries are allowed from everywhere."""


class Phase(StrEnum):
    """Name where a trigger is in its life."""

    IDLE = "idle"
    OPENING = "opening"
    SERVING = "serving"
    DRAINING = "draining"
    ENDING = "ending"
    """A second signal came: nothing is waited for any longer."""

    CLOSED = "closed"


class Cause(StrEnum):
    """Name what leads from one phase to another."""

    START = "start"
    OPENED = "opened"
    STOP = "stop()"
    SIGNAL = "a signal"
    LEFT = "its block was left"
    OVER = "all is closed, or could not be opened"


LIFE: Final[Mapping[Phase, Mapping[Cause, Phase]]] = {
    Phase.IDLE: {Cause.START: Phase.OPENING},
    Phase.OPENING: {
        Cause.OPENED: Phase.SERVING,
        Cause.STOP: Phase.DRAINING,
        Cause.SIGNAL: Phase.DRAINING,
        Cause.OVER: Phase.CLOSED,
    },
    Phase.SERVING: {
        Cause.STOP: Phase.DRAINING,
        Cause.SIGNAL: Phase.DRAINING,
        Cause.LEFT: Phase.DRAINING,
    },
    Phase.DRAINING: {Cause.SIGNAL: Phase.ENDING, Cause.OVER: Phase.CLOSED},
    Phase.ENDING: {Cause.OVER: Phase.CLOSED},
    Phase.CLOSED: {Cause.START: Phase.OPENING},
}
"""From each phase, what leads on, and to which. A start that is stopped drains at once, whatever it had opened."""


class DrainBounds(NamedTuple):
    """Hold for how many seconds a drain waits; for assistants as long as for all else if `rooms` is None."""

    timeout: float
    rooms: float | None = None


class Lifecycle:
    """Open, serve, drain and close what `wire` makes from settings, as often as it is started.

    `release` is told of each store that is in use no longer; `types` names the webhooks that predicates ask about;
    `metrics` and what `inspector` returns are each served on a port of their own if the settings name one.
    """

    def __init__(
        self,
        resolve: Callable[[], Resolved],
        wire: Callable[[Settings], tuple[Replica, Endpoint, Store]],
        release: Callable[[Store], None],
        types: Callable[[], list[str]],
        metrics: Callable[..., Any],
        inspector: "Callable[[], Inspector]",
    ) -> None:
        self._resolve, self._wire, self._release, self._types = resolve, wire, release, types
        self._metrics = metrics
        self._inspector = inspector
        self.inspectors: list[Inspector] = []
        """Those that somebody has asked for; they close with the trigger."""

        self.phase = Phase.IDLE
        self.endpoint: Endpoint | None = None
        self.end_by: float | None = None
        """When the process must have ended, in seconds of the boot clock; None if it is not ours to end."""

        self._owns_process = False
        self._replica: Replica | None = None
        self._server: Server | None = None
        self._metrics_server: Server | None = None
        self._inspector_server: Server | None = None
        self._opening: asyncio.Task[None] | None = None
        # As it was at the start: by the end, a file that holds a setting may be gone.
        self._drain_timeout = 0.0
        self._bounds: DrainBounds | None = None
        self._countdown = process.Countdown(self._say_left, partial(logs.show_status, ""))
        self._signal = signal.SIGTERM
        self._begin()

    @property
    def port(self) -> int | None:
        """The port that is listened on, or None."""
        return None if self._server is None else self._server.port

    @property
    def replica(self) -> Replica | None:
        """The replica that has opened and not closed yet, or None."""
        return None if self.endpoint is None else self._replica

    async def serve(self) -> None:
        """Serve until `stop()` or a signal, then drain. Signals are taken on the main thread only."""
        settings = self._checked_settings()
        # Before signals are taken: each of them then meets a start, which it gives up.
        self._begin(Cause.START, owns_process=True)
        self._countdown = process.Countdown(self._say_left, partial(logs.show_status, ""))
        with self._countdown, process.taken(self._signalled):
            self._opening = asyncio.create_task(self._open_with_port(settings))
            try:
                await self._opening
                await self._draining.wait()
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                logger.info("stopped before it had started")
            finally:
                await self.leave()

    async def enter(self) -> None:
        """Open the port and the store, and begin to serve within somebody's block."""
        settings = self._checked_settings()
        self._begin(Cause.START)
        await self._open_with_port(settings)

    async def leave(self) -> None:
        """Drain, close the port, close the store."""
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._close)
            closing.push_async_callback(self._close_metrics)
            closing.push_async_callback(self._close_inspector)
            if self._server is not None:
                closing.push_async_callback(self._close_port, self._server)
            await self._drain()

    @asynccontextmanager
    async def mounted(self) -> AsyncIterator[None]:
        """Serve within a host app's lifespan, without a port. Raises ConfigError without a secret."""
        settings = self._checked_settings()
        if not settings.signed and not settings.allow_unsigned:
            raise ConfigError(
                "a mounted trigger needs a secret, since the host app may be reached from anywhere: "
                "set WHEREBY_WEBHOOK_SECRET, or allow_unsigned=True"
            )
        self._begin(Cause.START)
        # A server may have forked this process after the log was configured.
        logs.have_thread()
        await self._open(settings)
        self._say_started(settings, "mounted in a host app")
        try:
            yield
        finally:
            await self.leave()

    def stop(self) -> None:
        """Make `serve()` drain and return; return at once. Any thread may call it."""
        # A block and a lifespan end when they are left.
        if not self._owns_process:
            return
        before = self._enter(Cause.STOP)
        if before is Phase.SERVING:
            self._bound_process(DrainBounds(self._drain_timeout))
        # Once the loop is closed, everything that could be stopped has stopped.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def end_within(self, seconds: float) -> None:
        """Limit the drain that a host is about to begin, and all that follows it, to some seconds."""
        if self._replica is not None:
            bounds = self._replica.drain_within(seconds)
            self._bounds = DrainBounds(*(min(self._drain_timeout, bound) for bound in bounds))

    def _begin(self, cause: Cause | None = None, *, owns_process: bool = False) -> None:
        # Both events only wake what waits in the loop for their phase.
        self._draining, self._ending = asyncio.Event(), asyncio.Event()
        self._bounds = self.end_by = None
        if cause is not None:
            self._loop, self._owns_process = asyncio.get_running_loop(), owns_process
            self._enter(cause)

    def _enter(self, cause: Cause) -> Phase:
        """Enter the phase that a cause leads to; return the one before."""
        while True:
            before = self.phase
            after = LIFE[before].get(cause, before)
            # A signal or another thread may have come since. It cannot from here on, as long as nothing is called.
            if self.phase is before:
                self.phase = after
                return before

    def _wake(self) -> None:
        if self.phase not in (Phase.OPENING, Phase.SERVING):
            self._draining.set()
        if self.phase is Phase.ENDING:
            self._ending.set()

    def _checked_settings(self) -> Settings:
        if process.is_being_imported():
            raise LifecycleError(
                "the command line imports this program and serves it itself: "
                'put what serves under `if __name__ == "__main__":`, or call start(), which returns at once then'
            )
        if Cause.START not in LIFE[self.phase]:
            raise LifecycleError("this trigger is running already: stop it first, or make another Trigger")
        resolved = self._resolve()
        for warning in resolved.warnings:
            logger.warning("%s", warning)
        check_exposure(resolved.settings)
        if (address := resolved.settings.inspector_address) is not None:
            check_inspector(resolved.settings, address[0])
        self._drain_timeout = resolved.settings.drain_timeout
        return resolved.settings

    async def _open_with_port(self, settings: Settings) -> None:
        try:
            listener = bind(settings.listen_host, settings.port)
        except BaseException:
            self._enter(Cause.OVER)
            raise
        try:
            await self._open_inspector(settings)
            endpoint = await self._open(settings)
        except BaseException:
            listener.close()
            await self._close_inspector()
            self._enter(Cause.OVER)
            raise
        # uvicorn is a third of what the import of this package would take, and a mounted trigger needs none.
        from whereby_trigger.receive.server import Server

        self._server = Server(endpoint, listener)
        await self._server.open()
        host = f"[{settings.listen_host}]" if ":" in settings.listen_host else settings.listen_host
        self._say_started(settings, f"http://{host}:{self._server.port}{settings.path}")
        if self._inspector_server is not None and settings.inspector_address is not None:
            shown = settings.inspector_address[0]
            shown = f"[{shown}]" if ":" in shown else shown
            logger.info("inspector at http://%s:%d/", shown, self._inspector_server.port)

    async def _open_inspector(self, settings: Settings) -> None:
        if settings.inspector_address is None:
            return
        from whereby_trigger.receive.server import Server

        host, port = settings.inspector_address
        self._inspector_server = Server(self._inspector(), bind(host, port, "inspector"))
        await self._inspector_server.open()

    async def _close_inspector(self) -> None:
        server, self._inspector_server = self._inspector_server, None
        if server is not None:
            # Pages that follow never end their requests.
            await server.close(0)
        for inspector in self.inspectors:
            await inspector.close()

    async def _open(self, settings: Settings) -> Endpoint:
        try:
            await self._open_metrics(settings)
            self._replica, endpoint, store = self._wire(settings)
            try:
                await self._replica.open()
            except BaseException:
                self._replica = None
                self._release(store)
                raise
        except BaseException:
            await self._close_metrics()
            self._enter(Cause.OVER)
            raise
        self.endpoint = endpoint
        self._enter(Cause.OPENED)
        return endpoint

    async def _open_metrics(self, settings: Settings) -> None:
        if settings.metrics_address is None:
            return
        from whereby_trigger.receive.server import Server

        host, port = settings.metrics_address
        self._metrics_server = Server(only_at(METRICS_PATH, self._metrics), bind(host, port, "metrics"))
        await self._metrics_server.open()
        shown = f"[{host}]" if ":" in host else host
        logger.info("metrics at http://%s:%d%s", shown, self._metrics_server.port, METRICS_PATH)

    async def _close_metrics(self) -> None:
        server, self._metrics_server = self._metrics_server, None
        if server is not None:
            await server.close(0)

    async def _drain(self) -> None:
        self._enter(Cause.LEFT)
        if self._replica is not None:
            timeout, rooms = self._bounds or DrainBounds(self._drain_timeout)
            # No signal has told of this drain, and none shortens it. A warning, since a host may show nothing less.
            if timeout and not self._owns_process and (awaited := self._replica.awaited):
                logger.warning("draining for at most %g s: %s", self._replica.drain_takes(timeout, rooms), awaited)
            await self._replica.drain(timeout, self._ending, rooms=rooms)

    async def _close_port(self, server: "Server") -> None:
        if self.phase is Phase.ENDING:
            await server.close(0)
        else:
            await server.close()
        self._server = None

    async def _close(self) -> None:
        replica, self.endpoint = self._replica, None
        try:
            if replica is not None:
                await replica.close(0 if self.phase is Phase.ENDING else LAST_DECISIONS)
        finally:
            self._replica = None
            self._enter(Cause.OVER)
            if replica is not None:
                self._release(replica.store)
        if replica is not None:
            logger.info("stopped", extra={"replica": replica.store.replica})

    def _signalled(self, number: signal.Signals) -> Callable[[], None]:
        """Enter the phase that a signal leads to, and return what is left for the loop to do.

        It runs while user code may block the loop, which it must not touch.
        """
        before = self._enter(Cause.SIGNAL)
        if before in (Phase.OPENING, Phase.SERVING):
            self._bounds = self._bounds_after(number)
            self._signal = number
            if before is Phase.SERVING:
                self._bound_process(self._bounds)
                self._count_down(self._bounds)
            else:
                self.end_by = boot_time() + GIVE_UP_START_WITHIN
            return partial(self._drain_after, number)
        self._countdown.end()
        # A third signal must not put off the end that the second has set.
        if before is not Phase.ENDING:
            # Once all is closed, what is left of the loop may still hold up the end.
            self.end_by = boot_time() if self._replica is None else self._replica.end_now()
        return partial(self._hurry_after, number)

    def _bounds_after(self, number: signal.Signals) -> DrainBounds:
        timeout = self._drain_timeout
        return DrainBounds(min(timeout, INTERRUPT_DRAIN), 0.0) if number == signal.SIGINT else DrainBounds(timeout)

    def _bound_process(self, bounds: DrainBounds) -> None:
        # In a host app, or around somebody's block, the process is not ours to end.
        if self._replica is not None and self._owns_process:
            self.end_by = self._replica.bound_drain(*bounds)

    def _count_down(self, bounds: DrainBounds) -> None:
        if self._replica is not None:
            self._countdown.begin(boot_time() + self._replica.drain_takes(*bounds))

    def _say_left(self, elapsed: float, left: float) -> float:
        """Show how long a drain still takes at most, and for what; return the seconds until that is said again.

        The countdown's thread calls it.
        """
        replica = self._replica
        awaited = BLOCKED if not self._draining.is_set() else "" if replica is None else replica.awaited
        text = f"draining: at most {left:.0f} s left{', ' * bool(awaited)}{awaited}; {AGAIN[self._signal]}"
        if logs.show_status(text):
            return 1.0
        if elapsed < SAY_EVERY:
            return SAY_EVERY - elapsed
        logger.info("%s", text)
        return max(SAY_EVERY, elapsed / 2)

    def _drain_after(self, number: signal.Signals) -> None:
        if self._opening is not None and not self._opening.done():
            logger.info("%s: the start is cancelled", number.name)
            self._opening.cancel()
        else:
            logger.info("%s: %s", number.name, self._draining_in_words())
        self._wake()

    def _hurry_after(self, number: signal.Signals) -> None:
        logger.warning("%s again: ending now", number.name)
        if self._opening is not None:
            self._opening.cancel()
        self._wake()

    def _draining_in_words(self) -> str:
        replica, bounds = self._replica, self._bounds
        if replica is None or bounds is None or not (bounds.timeout or replica.awaited):
            return "stopping"
        awaited = replica.awaited
        within = replica.drain_takes(*bounds)
        return f"draining for at most {within:g} s{': ' * bool(awaited)}{awaited}; {AGAIN[self._signal]}"

    def _say_started(self, settings: Settings, where: str) -> None:
        types = ", ".join(self._types()) or "none"
        signed = "signed" if settings.signed else "UNSIGNED"
        store, spill_file = store_for(settings.store).location, spill_file_for(settings.spill, settings.store)
        store = store if spill_file is None else f"{store}, spill {spill_file.path}"
        fields = {} if self._replica is None else {"replica": self._replica.store.replica}
        logger.info("%s, store %s, predicates for %s, %s deliveries", where, store, types, signed, extra=fields)
        if not settings.signed:
            logger.warning("%s", UNSIGNED[settings.allow_unsigned])


def _is_cancelled() -> bool:
    """Return True if whoever runs this task has cancelled it; a signal cancels only the opening, a task of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
