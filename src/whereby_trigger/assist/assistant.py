"""What a user registers to run in a room: a coroutine, or a command."""

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from msgspec import Struct

from whereby_trigger.assist.session import Session
from whereby_trigger.callables import is_async
from whereby_trigger.errors import RegistrationError

AssistantFunction = Callable[[Session], Coroutine[Any, Any, Any]]


class CoroutineAssistant(Struct, frozen=True):
    """Run the user's coroutine function in each room; with `bots`, a bot's join starts one too."""

    function: AssistantFunction
    bots: bool = False

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


class CommandAssistant(Struct, frozen=True):
    """Run a command as a process in each room; `env` is added to its environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    log_output: bool = False
    bots: bool = False

    @property
    def name(self) -> str:
        return " ".join(self.argv)


Assistant = CoroutineAssistant | CommandAssistant


def coroutine_assistant(function: Any, bots: bool) -> CoroutineAssistant:
    """Return a coroutine assistant; raises RegistrationError, with the right form, if the function cannot be one."""
    name = getattr(function, "__name__", repr(function))
    if not is_async(function):
        raise RegistrationError(
            f"the assistant {name} must be a coroutine: write `async def {name}(session: Session) -> None`"
        )
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        raise RegistrationError(
            f"the assistant {name} must take one argument, its session: write `async def {name}(session: Session)`"
        ) from None
    return CoroutineAssistant(function, bots)


def command_assistant(
    argv: Sequence[str], env: Mapping[str, str] | None, log_output: bool, bots: bool
) -> CommandAssistant:
    """Return a command assistant; raises RegistrationError, with the right form, if the command cannot be one."""
    if isinstance(argv, str) or not argv or not all(isinstance(part, str) and "\0" not in part for part in argv):
        raise RegistrationError('an assistant\'s command is a list of strings: write ["node", "assistant.mjs"]')
    return CommandAssistant(tuple(argv), dict(env or {}), log_output, bots)


class Registered:
    """Hold the one assistant of a trigger."""

    def __init__(self) -> None:
        self.assistant: Assistant | None = None

    def register(self, assistant: Assistant, *, running: bool) -> None:
        """Set the trigger's assistant; raises RegistrationError if it has one already, or is running."""
        if self.assistant is not None:
            raise RegistrationError(
                f"a trigger has one assistant, and this one already has {self.assistant.name}: "
                f"call {assistant.name} from there, or make another Trigger"
            )
        if running:
            raise RegistrationError(
                f"the trigger is already running, so {assistant.name} would never be started: "
                "register the assistant before the trigger starts, e.g. above `async with trigger.lifespan(app)`"
            )
        self.assistant = assistant
