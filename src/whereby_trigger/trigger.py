"""The Trigger: users create one, register functions with it, and start and stop it. `lifecycle` does the serving."""

import asyncio
import difflib
import inspect
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

from whereby_trigger import logs, process
from whereby_trigger.assist import (
    LEAVE_WHEN_EMPTY,
    MAX_DURATION,
    Assistant,
    AssistantFunction,
    Duration,
    Registered,
    Stdin,
    bounds_of,
    command_assistant,
    coroutine_assistant,
    request_for,
)
from whereby_trigger.clock import MACHINE, Clock
from whereby_trigger.config import Resolved, Settings, check, resolve
from whereby_trigger.decide import Emitter, On, Predicates, UserCode, WebhookTriggers, When
from whereby_trigger.errors import LifecycleError
from whereby_trigger.lifecycle import Lifecycle
from whereby_trigger.loggers import own_logger
from whereby_trigger.metrics import Counts, MetricsApp, ReplicaReadings
from whereby_trigger.receive import Endpoint
from whereby_trigger.receive.asgi import MountedApp
from whereby_trigger.receive.wsgi import WsgiApp
from whereby_trigger.replica import Replica
from whereby_trigger.stderr import fill_closed_descriptors
from whereby_trigger.store import Room, RoomClaim, RoomState, RunQuery, RunRecord, Store, every_room
from whereby_trigger.store.factory import InUse, spill_file_for, store_for, usable
from whereby_trigger.webhook import room_from_url

if TYPE_CHECKING:
    from whereby_trigger.inspector import Inspector
    from whereby_trigger.testing import TestingTrigger

logger = own_logger("whereby_trigger")

A = TypeVar("A", bound=AssistantFunction)

SettingDuration = float | timedelta | str
"""Seconds, a timedelta, or a text such as "90s", "30m", "2h" or "7d"."""

NO_PREDICATES: Final[WebhookTriggers] = {}
"""Not None: a type checker points at the wrong entry of a dict only if nothing but a dict is allowed."""


class Trigger:
    """Listen for Whereby's webhooks, ask predicates about them, and tell listeners when one says True.

    All arguments are keywords; what is left out comes from the environment, then from the defaults. Durations are
    seconds, a timedelta, or a text such as "90s" or "7d". Raises ConfigError for a value that cannot be used,
    RegistrationError for a predicate, TypeError for a keyword that there is not.
    Source: Whereby's Assistant SDK reference, Trigger.
    """

    if not TYPE_CHECKING:

        def __new__(cls, *values: Any, **keywords: Any) -> "Trigger":
            """Return how a call is written that Python would refuse with less help."""
            if cls.__init__ is Trigger.__init__:
                _check_call(values, keywords)
            return super().__new__(cls)

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
        tolerance: SettingDuration | None = None,
        max_body: int | None = None,
        store: str | None = None,
        spill: str | None = None,
        metrics: str | None = None,
        retention: SettingDuration | None = None,
        body_retention: SettingDuration | None = None,
        redact: str | Sequence[str] | None = None,
        max_age: SettingDuration | None = None,
        predicate_timeout: SettingDuration | None = None,
        lease_ttl: SettingDuration | None = None,
        max_rooms: int | None = None,
        stop_grace: SettingDuration | None = None,
        drain_timeout: SettingDuration | None = None,
        inspector: str | None = None,
        inspector_token: str | None = None,
        inspector_actions: bool | None = None,
        inspector_reveal: bool | None = None,
    ) -> None:
        self._keywords = {name: value for name, value in locals().items() if name not in ("self", "webhook_triggers")}
        check(self._keywords)
        self._overrides: dict[str, Any] = {}
        self.predicates = Predicates(dict(webhook_triggers or {}))
        self.emitter = Emitter()
        self.when = When(self.predicates, self._keeps_presence)
        self.on = On(self.emitter, once=False)
        self.once = On(self.emitter, once=True)
        self._registered = Registered()
        self._user_code: UserCode | None = None
        self._in_use: list[InUse] = []
        self._taking_into_use = threading.Lock()
        self._counts = Counts()
        self._metrics_app = MetricsApp(self._counts, self._replica_to_read)
        self.metrics: Callable[..., Any] = self._metrics_app
        self._lifecycle = Lifecycle(
            self.resolve, self._wire, self._release, self.predicates.types, self.metrics, lambda: self.inspector
        )
        # Starlette's add_route takes any ASGI app, but its annotation names functions of a request only.
        self.asgi: Callable[..., Any] = MountedApp(self.lifespan, lambda: self._lifecycle.endpoint, self._counts)
        self.wsgi = WsgiApp(
            self._lifecycle.mounted, self._lifecycle.end_within, lambda: self._lifecycle.endpoint, self._counts
        )

    @cached_property
    def inspector(self) -> "Inspector":
        """The page on which you see what happens, as an ASGI app: for this machine only, or behind a login."""
        # A trigger without one imports nothing of it.
        from whereby_trigger.inspector import InspectedProgram, Inspector

        lifecycle = self._lifecycle
        program = InspectedProgram(
            self._settings, self._any_store, self.predicates, lambda: lifecycle.replica, self._metrics_app
        )
        inspector = Inspector(program)
        lifecycle.inspectors.append(inspector)
        return inspector

    def off(self, event: str, listener: Callable[..., Any]) -> bool:
        """Remove a listener; return True if it was registered."""
        return self.emitter.off(event, listener)

    def listeners(self, event: str) -> list[Callable[..., Any]]:
        """List an event's listeners, in the order of their registration."""
        return self.emitter.listeners(event)

    async def emit(self, event: str, payload: Any = None) -> bool:
        """Call an event's listeners; return True if there is one. What they raise is logged, not raised.

        Outside the loop in which the trigger runs, this also waits for async listeners: nobody else would.
        """

        process.check_effect("trigger.emit()")

        def failed(listener: str, error: BaseException) -> None:
            logger.warning("listener %s of %r raised %s", listener, event, type(error).__name__)

        if self._user_code is not None and self._user_code.runs_here:
            return await self.emitter.emit(event, payload, self._user_code, failed)
        settings = self._settings()
        user_code = UserCode(settings.predicate_timeout)
        try:
            return await self.emitter.emit(event, payload, user_code, failed)
        finally:
            await user_code.drain(settings.drain_timeout)
            user_code.close()

    @overload
    def assistant(self, function: A, /) -> A: ...
    @overload
    def assistant(
        self,
        /,
        *,
        bots: bool = False,
        leave_when_empty: Duration | None = LEAVE_WHEN_EMPTY,
        max_duration: Duration | None = MAX_DURATION,
    ) -> Callable[[A], A]: ...
    def assistant(
        self,
        function: Any = None,
        /,
        *,
        bots: bool = False,
        leave_when_empty: Duration | None = LEAVE_WHEN_EMPTY,
        max_duration: Duration | None = MAX_DURATION,
    ) -> Any:
        """Register the coroutine that runs in each room that asks for one: `@trigger.assistant`.

        One per room, started again when it raises, ended with the room's session. It is told to leave a room that is
        known to hold no human for `leave_when_empty` (60 s), and any room after `max_duration` (12 h); None lifts a
        bound. With `bots`, a bot's own join or leave may start one too. Raises RegistrationError for a second one, one
        that is not `async def`, a bound that is no duration above 0, and in a run.
        """
        bounds = bounds_of(leave_when_empty, max_duration)

        def register(function: A) -> A:
            self._registered.register(coroutine_assistant(function, bots, bounds), running=bool(self._in_use))
            return function

        return register if function is None else register(function)

    def assistant_command(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log_output: bool = False,
        bots: bool = False,
        leave_when_empty: Duration | None = LEAVE_WHEN_EMPTY,
        max_duration: Duration | None = MAX_DURATION,
        stdin: Stdin = "line",
    ) -> None:
        """Register the command that runs as a process in each room: `trigger.assistant_command(["node", "a.mjs"])`.

        The webhook and the room come as JSON on its stdin, the room also as WHEREBY_ROOM_URL, WHEREBY_ROOM_NAME and
        WHEREBY_WEBHOOK_ID; `env` is added to its environment. Exit code 0: it left the room, 75: worth another try, 69:
        never again, anything else: a failure. Its output is logged only with `log_output`, since it may hold names.
        With `stdin="stream"`, a line of JSON for each webhook and each change of presence follows the first one, and
        stdin ends when the assistant should leave; with "line" it ends after the first line. The bounds are those of
        `assistant`. Raises RegistrationError for a second assistant, an `env` that no process can have, another
        `stdin`, a bound that is no duration above 0, and once the trigger runs.
        """
        bounds = bounds_of(leave_when_empty, max_duration)
        command = command_assistant(argv, env, log_output, bots, bounds, stdin)
        self._registered.register(command, running=bool(self._in_use))

    @property
    def registered_assistant(self) -> Assistant | None:
        """The assistant that runs in each room that asks for one, or None if none is registered."""
        return self._registered.assistant

    async def list_assistants(self) -> list[Room]:
        """List the rooms that have asked for an assistant, newest first, whichever replica serves them.

        Raises StoreError if there is no store yet.
        """
        async with self._any_store(reading=True) as store:
            return [room async for room in every_room(store)]

    async def list_runs(self, room_url: str | None = None, *, limit: int = 100) -> list[RunRecord]:
        """List the newest `limit` runs of assistants, newest first, in all rooms or in one.

        Raises ConfigError if the URL is not a Whereby room's, and StoreError if there is no store yet.
        """
        query = RunQuery(room=None if room_url is None else room_from_url(room_url).key, limit=limit)
        async with self._any_store(reading=True) as store:
            return await store.find_runs(query)

    async def start_assistant(self, room_url: str) -> RoomClaim:
        """Ask for an assistant in a room by hand; the claim says if the room waits for one now, or has one already.

        Raises ConfigError if the URL is not a Whereby room's.
        """
        process.check_effect("trigger.start_assistant()")
        in_use = self._in_use_here()
        clock = MACHINE if in_use is None else in_use.clock
        request = request_for(room_from_url(room_url), None, clock.wall())
        async with self._any_store() as store:
            return await store.request(request)

    async def stop_assistant(self, room_url: str) -> RoomState | None:
        """Ask a room's assistant to end, whichever replica runs it; return the state it was in, None if there was none.

        Raises ConfigError if the URL is not a Whereby room's.
        """
        process.check_effect("trigger.stop_assistant()")
        room = room_from_url(room_url)
        async with self._any_store() as store:
            return await store.stop(room.key, "stopped by the program")

    @property
    def port(self) -> int:
        """The port that is listened on, or will be: with `port=0` it is known once the trigger runs."""
        port = self._lifecycle.port
        return self._settings().port if port is None else port

    @property
    def end_by(self) -> float | None:
        """When the process must have ended, in seconds of the boot clock; None if nothing sets a bound."""
        return self._lifecycle.end_by

    def resolve(self) -> Resolved:
        """Resolve the settings as they are now. Raises ConfigError."""
        return resolve(self._keywords, self._overrides)

    def override(self, settings: Mapping[str, Any]) -> None:
        """Set settings that come before the keywords, as the command line does; None leaves one alone."""
        self._overrides |= {name: value for name, value in settings.items() if value is not None}

    def start(self) -> None:
        """Serve until SIGINT or SIGTERM, then drain and return. Blocks.

        Does nothing while the command line imports the program, since the command line serves. Raises LifecycleError
        in a running event loop, ConfigError, AddressError or StoreError if it cannot start.
        """
        if process.is_being_imported():
            return
        process.check_effect("trigger.start()")
        if process.in_event_loop():
            raise LifecycleError(
                "start() blocks, but an event loop is running here: write `await trigger.serve()`, "
                "or `async with trigger:` to go on beside it"
            )
        fill_closed_descriptors()
        logs.configure_program()
        if not self.emitter.events() and self._registered.assistant is None:
            warnings.warn(
                "start() blocks, and nothing listens: lines after it have not run; "
                "move @trigger.on(...) and @trigger.assistant before start()",
                stacklevel=2,
            )
        process.run(self.serve(), lambda: self.end_by)

    def serve(self) -> Coroutine[Any, Any, None]:
        """Serve until `stop()`, SIGINT or SIGTERM, then drain. Signals are taken on the main thread only."""
        process.check_effect("trigger.serve()")
        begun: list[bool] = []

        async def serve() -> None:
            begun.append(True)
            await self._lifecycle.serve()

        serving = serve()
        weakref.finalize(serving, _check_awaited, begun)
        return serving

    def stop(self) -> None:
        """Have `start()` or `serve()` drain and return; returns at once. Any thread may call it, more than once.

        Before one of them has begun, a stop is lost; while it opens the store, it counts. `async with` and a lifespan
        end with their block.
        """
        self._lifecycle.stop()

    async def __aenter__(self) -> "Trigger":
        """Open the port and the store, and begin to serve."""
        process.check_effect("async with trigger")
        await self._lifecycle.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain, close the port, close the store."""
        await self._lifecycle.leave()

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Run inside a host app's lifespan, without a port of our own, for `trigger.asgi`.

        Raises ConfigError without a secret, unless unsigned deliveries are allowed.
        """
        async with self._lifecycle.mounted():
            yield

    def testing(self, *, assistants: Literal["list", "run"] = "list") -> "TestingTrigger":
        """Make this trigger deliverable to in a test: `async with trigger.testing() as t: await t.deliver(...)`.

        No assistant starts: `t.assistants` lists those that would have. With `assistants="run"` they run as well.
        Raises ValueError for another word.
        """
        if assistants not in ("list", "run"):
            raise ValueError(f"assistants is 'list' or 'run', not {assistants!r}")

        def wire(overrides: Mapping[str, Any], store: Store, clock: Clock) -> tuple[Replica, Endpoint, Store]:
            settings = resolve(self._keywords, self._overrides | dict(overrides)).settings
            return self._build(settings, store, clock, process.NoWatchdog(), starts_assistants=assistants == "run")

        from whereby_trigger.testing import TestingTrigger

        return TestingTrigger(wire, self._release)

    def _wire(self, settings: Settings) -> tuple[Replica, Endpoint, Store]:
        return self._build(settings, store_for(settings.store, settings.lease_ttl, settings.store_file))

    def _build(
        self,
        settings: Settings,
        store: Store,
        clock: Clock = MACHINE,
        watchdog: process.Watchdog | None = None,
        *,
        starts_assistants: bool = True,
    ) -> tuple[Replica, Endpoint, Store]:
        process.check_effect("a method that serves")
        self._user_code = UserCode(settings.predicate_timeout)
        replica = Replica(
            settings,
            store,
            self.predicates,
            self.emitter,
            self._user_code,
            self._registered.assistant,
            spill_file_for(settings.spill, settings.store),
            starts_assistants=starts_assistants,
            counts=self._counts,
            clock=clock,
            watchdog=watchdog,
        )
        with self._taking_into_use:
            self._in_use = [*self._in_use, InUse(store, settings, asyncio.get_running_loop(), clock)]
        return replica, replica.endpoint, store

    def _replica_to_read(self) -> ReplicaReadings | None:
        replica = self._lifecycle.replica
        return (
            None if replica is None else ReplicaReadings(replica.store, self._in_use[-1].loop, lambda: replica.readings)
        )

    def _any_store(self, *, reading: bool = False) -> AbstractAsyncContextManager[Store]:
        in_use = self._in_use_here()
        settings = self.resolve().settings if in_use is None else in_use.settings
        return usable(in_use, settings, reading=reading)

    def _in_use_here(self) -> InUse | None:
        """Return what is in use in the running event loop, else what was last taken into use anywhere, or None."""
        # Read once: another thread may ask while the last one stops.
        in_use = self._in_use
        loop = asyncio.get_running_loop() if process.in_event_loop() else None
        here = [one for one in in_use if one.loop is loop] or in_use
        return here[-1] if here else None

    def _settings(self) -> Settings:
        """Return the settings in use, or those of now if it does not run. The file of a secret in use may be gone."""
        in_use = self._in_use_here()
        return self.resolve().settings if in_use is None else in_use.settings

    def _keeps_presence(self) -> bool:
        # What runs has decided at its start.
        return not self._in_use or self._registered.assistant is not None or self.predicates.use_presence

    def _release(self, store: Store) -> None:
        with self._taking_into_use:
            self._in_use = [one for one in self._in_use if one.store is not store]


def _check_call(values: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
    """Raise TypeError, with the right form, for a call of `Trigger` that cannot be right."""
    if values:
        raise TypeError("Trigger takes its settings by name: write Trigger(webhook_triggers={...}, port=8080)")
    known = [name for name in inspect.signature(Trigger.__init__).parameters if name != "self"]
    for name in keywords:
        if name not in known:
            snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
            near = difflib.get_close_matches(snake, known, 1)
            meant = f"write {near[0]}=" if near else f"there are {', '.join(known)}"
            raise TypeError(f"Trigger has no setting {name!r}: {meant}")


def _check_awaited(begun: Sequence[bool]) -> None:
    if not begun:
        warnings.warn(
            "trigger.serve() was called but not awaited, so nothing was served: write `await trigger.serve()`, "
            "or trigger.start() outside of async code",
            RuntimeWarning,
            stacklevel=2,
        )
