"""The Trigger: what a user makes, registers functions with, and starts. Wires the stages; owns start and stop."""

import asyncio
import logging
import signal
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

from whereby_trigger import logs, process
from whereby_trigger.assist import (
    Assistant,
    AssistantFunction,
    Registered,
    command_assistant,
    coroutine_assistant,
    request_for,
)
from whereby_trigger.clock import boot_time
from whereby_trigger.config import Resolved, Settings, check, check_exposure, resolve
from whereby_trigger.decide import Emitter, On, Predicates, UserCode, WebhookTriggers, When
from whereby_trigger.errors import ConfigError, LifecycleError
from whereby_trigger.receive import Endpoint, Rules, bind
from whereby_trigger.receive.asgi import MountedApp
from whereby_trigger.replica import Replica
from whereby_trigger.stderr import fill_closed_descriptors
from whereby_trigger.store import Room, RoomClaim, RoomState, Store, every_room
from whereby_trigger.store.factory import InUse, spill_file_for, store_for, usable
from whereby_trigger.testing.in_process import TestingTrigger
from whereby_trigger.webhook import room_from_url

if TYPE_CHECKING:
    from whereby_trigger.receive.server import Server

logger = logging.getLogger("whereby_trigger")

A = TypeVar("A", bound=AssistantFunction)

INTERRUPT_DRAIN = 10.0
"""Seconds that a drain waits at the most for listeners after SIGINT: somebody sits at the terminal.

Assistants, which may be in a meeting of hours, are told to leave at once.
"""

NO_PREDICATES: Final[WebhookTriggers] = {}
"""Not None: a type checker blames the wrong entry of a dict only where nothing but a dict can be given."""

LAST_DECISIONS = 1.0

GIVE_UP_START_WITHIN = 2.0
"""Seconds that a start which a signal has given up may take to end: a thread may still wait for a lock."""

UNSIGNED = {
    False: "UNSIGNED: no secret is set, so any program on this machine can start assistants. Requests that show that a "
    "web page, a proxy or a tunnel sent them are refused, but not every proxy shows it: set WHEREBY_WEBHOOK_SECRET "
    "before anything forwards to this port",
    True: "UNSIGNED: no secret is set and unsigned deliveries are allowed, so anybody who reaches this address can "
    "start assistants: set WHEREBY_WEBHOOK_SECRET",
}
"""What a start without a secret says, by whether unsigned deliveries are allowed from everywhere."""


class Trigger:
    """Listen for Whereby's webhooks, ask predicates about them, and tell listeners when one says True.

    All arguments are keywords; what is left out comes from the environment, then from the defaults. Durations are
    seconds or a timedelta. Raises ConfigError for a value that cannot be used, RegistrationError for a predicate.
    Source: Whereby's Assistant SDK reference, Trigger.
    """

    def __init__(
        self,
        *,
        webhook_triggers: WebhookTriggers = NO_PREDICATES,
        port: int | None = None,
        host: str | None = None,
        path: str | None = None,
        subdomain: str | None = None,
        secret: str | Sequence[str] | None = None,
        allow_unsigned: bool | None = None,
        tolerance: float | timedelta | None = None,
        max_body: int | None = None,
        store: str | None = None,
        spill: str | None = None,
        retention: float | timedelta | None = None,
        max_age: float | timedelta | None = None,
        predicate_timeout: float | timedelta | None = None,
        lease_ttl: float | timedelta | None = None,
        max_rooms: int | None = None,
        stop_grace: float | timedelta | None = None,
        drain_timeout: float | timedelta | None = None,
    ) -> None:
        self._keywords = {name: value for name, value in locals().items() if name not in ("self", "webhook_triggers")}
        check(self._keywords)
        self._overrides: dict[str, Any] = {}
        self.predicates = Predicates(dict(webhook_triggers or {}))
        self.emitter = Emitter()
        self.when = When(self.predicates)
        self.on = On(self.emitter, once=False)
        self.once = On(self.emitter, once=True)
        self._registered = Registered()
        # Starlette's add_route takes any ASGI app, but its annotation names functions of a request only.
        self.asgi: Callable[..., Any] = MountedApp(self.lifespan, lambda: self._endpoint)
        self._user_code: UserCode | None = None
        self._running: Replica | None = None
        self._in_use: list[InUse] = []
        self._endpoint: Endpoint | None = None
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._drain_timeout: float | None = None
        self._rooms_for: float | None = None
        self.end_by: float | None = None
        self._draining_since_signal = self._serving = False
        self._opening: asyncio.Future[Trigger] | None = None
        self._stopped_early = False

    def off(self, event: str, listener: Callable[..., Any]) -> bool:
        """Remove a listener; tell whether it was registered."""
        return self.emitter.off(event, listener)

    def listeners(self, event: str) -> list[Callable[..., Any]]:
        """List an event's listeners, in the order of their registration."""
        return self.emitter.listeners(event)

    async def emit(self, event: str, payload: Any = None) -> bool:
        """Call an event's listeners and tell whether there was one; what they raise is logged, not raised.

        Away from the loop in which the trigger runs, async listeners are waited for as well: nobody else would.
        """

        def failed(listener: str, error: BaseException) -> None:
            logger.warning("listener %s of %r raised %s", listener, event, type(error).__name__)

        if self._user_code is not None and self._user_code.runs_here:
            return await self.emitter.emit(event, payload, self._user_code, failed)
        settings = self.resolve().settings
        user_code = UserCode(settings.predicate_timeout)
        try:
            return await self.emitter.emit(event, payload, user_code, failed)
        finally:
            await user_code.drain(settings.drain_timeout)
            user_code.close()

    @overload
    def assistant(self, function: A, /) -> A: ...
    @overload
    def assistant(self, /, *, bots: bool = False) -> Callable[[A], A]: ...
    def assistant(self, function: Any = None, /, *, bots: bool = False) -> Any:
        """Register the coroutine that runs in each room that asks for one: `@trigger.assistant`.

        One per room, started again when it raises, ended with the room's session. With `bots`, a bot's own join or
        leave may start one too. Raises RegistrationError for a second one, one not `async def`, and in a run.
        """

        def register(function: A) -> A:
            self._registered.register(coroutine_assistant(function, bots), running=bool(self._in_use))
            return function

        return register if function is None else register(function)

    def assistant_command(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log_output: bool = False,
        bots: bool = False,
    ) -> None:
        """Register the command that runs as a process in each room: `trigger.assistant_command(["node", "a.mjs"])`.

        The webhook and the room come as JSON on its stdin, the room also as WHEREBY_ROOM_URL, WHEREBY_ROOM_NAME and
        WHEREBY_WEBHOOK_ID; `env` is added to its environment. Exit code 0: it left the room, 75: worth another try,
        anything else: a failure. Its output is logged only with `log_output`, since it may hold names.
        Raises RegistrationError for a second assistant, and once the trigger runs.
        """
        self._registered.register(command_assistant(argv, env, log_output, bots), running=bool(self._in_use))

    @property
    def registered_assistant(self) -> Assistant | None:
        """The assistant that runs in each room that asks for one, where one is registered."""
        return self._registered.assistant

    async def list_assistants(self) -> list[Room]:
        """List the rooms that have asked for an assistant, newest first, whichever replica serves them.

        Raises StoreError where there is no store yet.
        """
        async with self._any_store(reading=True) as store:
            return [room async for room in every_room(store)]

    async def start_assistant(self, room_url: str) -> RoomClaim:
        """Ask for an assistant in a room by hand; tell whether it waits for one now, or has one already.

        Raises ConfigError where the URL is not a Whereby room's.
        """
        request = request_for(room_from_url(room_url), None, time.time())
        async with self._any_store() as store:
            return await store.request(request)

    async def stop_assistant(self, room_url: str) -> RoomState | None:
        """Ask a room's assistant to end, whichever replica runs it; return the state it was in, None without one.

        Raises ConfigError where the URL is not a Whereby room's.
        """
        room = room_from_url(room_url)
        async with self._any_store() as store:
            return await store.stop(room.key, "stopped by hand")

    @property
    def port(self) -> int:
        """The port that is listened on, or will be: with `port=0` it is known once the trigger runs."""
        return self.resolve().settings.port if self._server is None else self._server.port

    def resolve(self) -> Resolved:
        """Resolve the settings as they are now. Raises ConfigError."""
        return resolve(self._keywords, self._overrides)

    def override(self, settings: Mapping[str, Any]) -> None:
        """Set settings that come before the keywords, as the command line does; None leaves one alone."""
        self._overrides |= {name: value for name, value in settings.items() if value is not None}

    def start(self) -> None:
        """Serve until SIGINT or SIGTERM, then drain and return. Blocks.

        Does nothing while the command line imports the program, since the command line serves. Raises LifecycleError
        in a running event loop, ConfigError, AddressError or StoreError where it cannot start.
        """
        if process.is_being_imported():
            return
        if process.in_event_loop():
            raise LifecycleError(
                "start() blocks, but an event loop is running here: write `await trigger.serve()`, "
                "or `async with trigger:` to go on beside it"
            )
        fill_closed_descriptors()
        logs.configure()
        if not self.emitter.events() and self._registered.assistant is None:
            warnings.warn(
                "start() blocks, and nothing listens: lines after it have not run; "
                "move @trigger.on(...) and @trigger.assistant before start()",
                stacklevel=2,
            )
        process.run(self.serve(), lambda: self.end_by)

    async def serve(self) -> None:
        """Serve until `stop()`, SIGINT or SIGTERM, then drain. Signals are taken on the main thread only."""
        with process.taken(self._signalled, self._bound_end):
            if not await self._is_opened():
                logger.info("stopped before it had started")
                return
            async with AsyncExitStack() as ending:
                ending.push_async_exit(self.__aexit__)
                self._serving = True
                await self._stopping.wait()

    async def _is_opened(self) -> bool:
        """Open the port and the store; return False if a signal came first, whatever a store was waiting for."""
        self._stopped_early = False
        self._opening = asyncio.ensure_future(self.__aenter__())
        try:
            await self._opening
        except asyncio.CancelledError:
            if not self._stopped_early:
                raise
            return False
        finally:
            self._opening = None
        if self._stopped_early:
            self._stopping.set()
        return True

    def stop(self) -> None:
        """Have `start()` or `serve()` drain and return; returns at once. Any thread may call it, more than once.

        It is for a trigger that serves: before, a stop is lost, and `async with` and a lifespan end with their block.
        """
        loop = self._loop
        if loop is not None:
            self._bound_drain(self.resolve().settings.drain_timeout)
            # Where the loop is closed, all that could be stopped has stopped.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._stopping.set)

    async def __aenter__(self) -> "Trigger":
        """Open the port and the store, and begin to serve."""
        settings = self._settings()
        listener = bind(settings.listen_host, settings.port)
        try:
            edge = await self._open(settings)
        except BaseException:
            listener.close()
            raise
        # uvicorn is a third of what the import of this package would take, and a mounted trigger needs none.
        from whereby_trigger.receive.server import Server

        self._server = Server(edge, listener)
        await self._server.open()
        host = f"[{settings.listen_host}]" if ":" in settings.listen_host else settings.listen_host
        self._say_started(settings, f"http://{host}:{self._server.port}{settings.path}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain, close the port, close the store."""
        async with AsyncExitStack() as ending:
            ending.push_async_callback(self._close)
            if self._server is not None:
                ending.push_async_callback(self._close_port, self._server)
            await self._drain()

    async def _close_port(self, server: "Server") -> None:
        if self._hurry.is_set():
            await server.close(0)
        else:
            await server.close()
        self._server = None

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Run inside a host app's lifespan, without a port of our own, for `trigger.asgi`.

        Raises ConfigError without a secret, unless unsigned deliveries are allowed.
        """
        settings = self._settings()
        if not settings.signed and not settings.allow_unsigned:
            raise ConfigError(
                "trigger.asgi needs a secret, since the host app may be reached from anywhere: "
                "set WHEREBY_WEBHOOK_SECRET, or allow_unsigned=True"
            )
        await self._open(settings)
        self._say_started(settings, "mounted in a host app")
        async with AsyncExitStack() as ending:
            ending.push_async_callback(self._close)
            ending.push_async_callback(self._drain)
            yield

    def testing(self, *, assistants: Literal["list", "run"] = "list") -> TestingTrigger:
        """Make this trigger deliverable to in a test: `async with trigger.testing() as t: await t.deliver(...)`.

        No assistant starts: `t.assistants` lists those that would have. With `assistants="run"` they run as well.
        Raises ValueError for another word.
        """
        if assistants not in ("list", "run"):
            raise ValueError(f"assistants is 'list' or 'run', not {assistants!r}")

        def wire(overrides: dict[str, Any]) -> tuple[Replica, Endpoint, Store]:
            settings = resolve(self._keywords, self._overrides | overrides).settings
            return self._wire(settings, starts_assistants=assistants == "run")

        return TestingTrigger(wire, self._release)

    def _settings(self) -> Settings:
        if process.is_being_imported():
            raise LifecycleError(
                "the command line imports this program and serves it by itself: "
                'put what serves under `if __name__ == "__main__":`, or call start(), which returns at once then'
            )
        if self._running is not None:
            raise LifecycleError("this trigger is running already: stop it first, or make another Trigger")
        resolved = self.resolve()
        for warning in resolved.warnings:
            logger.warning("%s", warning)
        check_exposure(resolved.settings)
        return resolved.settings

    def _wire(self, settings: Settings, *, starts_assistants: bool = True) -> tuple[Replica, Endpoint, Store]:
        store, spill_file = (
            store_for(settings.store, settings.lease_ttl),
            spill_file_for(settings.spill, settings.store),
        )
        self._user_code, assistant = UserCode(settings.predicate_timeout), self._registered.assistant
        running = Replica(
            settings,
            store,
            self.predicates,
            self.emitter,
            self._user_code,
            assistant,
            spill_file,
            starts_assistants=starts_assistants,
        )
        self._in_use.append(InUse(store, settings, asyncio.get_running_loop()))
        rules = Rules(settings.secret, settings.allow_unsigned, settings.tolerance, settings.subdomain)
        return running, Endpoint(running, rules, path=settings.path, max_body=settings.max_body), store

    async def _open(self, settings: Settings) -> Endpoint:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._hurry = asyncio.Event(), asyncio.Event()
        self._drain_timeout = self._rooms_for = self.end_by = None
        self._draining_since_signal = self._serving = False
        self._running, edge, store = self._wire(settings)
        try:
            await self._running.open()
        except BaseException:
            self._running = None
            self._release(store)
            raise
        self._endpoint = edge
        return edge

    async def _drain(self) -> None:
        if self._running is not None:
            timeout = self.resolve().settings.drain_timeout if self._drain_timeout is None else self._drain_timeout
            # No signal has told of this drain, and none shortens it. A warning, since a host may show nothing less.
            if timeout and not self._serving and (awaited := self._running.awaited):
                logger.warning("draining for at most %g s: %s", self._running.drain_takes(timeout), awaited)
            await self._running.drain(timeout, self._hurry, rooms=self._rooms_for)

    async def _close(self) -> None:
        running, self._endpoint = self._running, None
        if running is None:
            return
        try:
            await running.close(0 if self._hurry.is_set() else LAST_DECISIONS)
        finally:
            self._running = None
            self._release(running.store)
        logger.info("stopped")

    def _bound_end(self, number: signal.Signals) -> None:
        if self._draining_since_signal:
            # Once all is closed, what is left of the loop may still hold up the end.
            self.end_by = boot_time() if self._running is None else self._running.end_now()
        else:
            self._draining_since_signal = True
            self._bound_drain(self._drain_for(number), _rooms_for(number))

    def _bound_drain(self, timeout: float, rooms: float | None = None) -> None:
        # In a host app, or around somebody's block, the process is not ours to end.
        if self._running is not None and self._serving:
            self.end_by = self._running.bound_drain(timeout, rooms)

    def _drain_for(self, number: signal.Signals) -> float:
        settled = self.resolve().settings.drain_timeout
        return min(settled, INTERRUPT_DRAIN) if number == signal.SIGINT else settled

    def _signalled(self, number: signal.Signals) -> None:
        if self._opening is not None and not self._opening.done():
            logger.info("%s: the start is given up", number.name)
            self._stopped_early, self.end_by = True, boot_time() + GIVE_UP_START_WITHIN
            self._opening.cancel()
            return
        if self._stopping.is_set():
            logger.warning("%s again: ending now", number.name)
            self._hurry.set()
            return
        self._drain_timeout, self._rooms_for = self._drain_for(number), _rooms_for(number)
        logger.info("%s: %s", number.name, self._draining_in_words(self._drain_timeout, self._rooms_for))
        self._stopping.set()

    def _draining_in_words(self, timeout: float, rooms: float | None) -> str:
        awaited = "" if self._running is None else self._running.awaited
        if self._running is None or not (timeout or awaited):
            return "stopping"
        within = self._running.drain_takes(timeout, rooms)
        return f"draining for at most {within:g} s, or until it comes again{': ' * bool(awaited)}{awaited}"

    def _any_store(self, *, reading: bool = False) -> AbstractAsyncContextManager[Store]:
        in_use = self._in_use[-1] if self._in_use else None
        settings = self.resolve().settings if in_use is None else in_use.settings
        return usable(in_use, settings, reading=reading)

    def _release(self, store: Store) -> None:
        self._in_use = [one for one in self._in_use if one.store is not store]

    def _say_started(self, settings: Settings, where: str) -> None:
        types = ", ".join(self.predicates.types()) or "none"
        signed = "signed" if settings.signed else "UNSIGNED"
        store, spill_file = store_for(settings.store).location, spill_file_for(settings.spill, settings.store)
        store = store if spill_file is None else f"{store}, spill {spill_file.path}"
        logger.info("%s, store %s, predicates for %s, %s deliveries", where, store, types, signed)
        if not settings.signed:
            logger.warning("%s", UNSIGNED[settings.allow_unsigned])


def _rooms_for(number: signal.Signals) -> float | None:
    """Tell for how many seconds assistants are waited for after a signal; None if that is as long as for all else."""
    return 0.0 if number == signal.SIGINT else None
