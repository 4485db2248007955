"""How a trigger's assistant is launched: as a coroutine on the loop, or as a process behind its guard."""

from collections.abc import Callable, Collection

from whereby_trigger.assist.assistant import Assistant, CommandAssistant
from whereby_trigger.assist.command import run_command
from whereby_trigger.assist.follow import End
from whereby_trigger.assist.run import run_coroutine
from whereby_trigger.assist.runs import Run
from whereby_trigger.assist.supervisor import Launch


def launcher(
    assistant: Assistant,
    *,
    grace: float,
    deadline: Callable[[], float],
    life: Callable[[], int | None] = lambda: None,
    hidden: Collection[str] = (),
) -> Launch:
    """Make the function that runs an assistant in a room to its end.

    `grace` is stop_grace in seconds; `deadline` tells, on the boot clock, by when a process must be gone; `life`
    returns the descriptor of the lock that shows this replica alive, if it has one; `hidden` are the values that no
    process may see.
    """

    async def launch(run: Run, launched: Callable[[int | None], None]) -> End:
        if isinstance(assistant, CommandAssistant):
            # A process has no way to ask its session, where all that it heard would pile up.
            run.hears = False
            return await run_command(
                assistant, run, launched, grace=grace, deadline=deadline, life=life(), hidden=hidden
            )
        launched(None)
        return await run_coroutine(assistant, run.session, grace)

    return launch
