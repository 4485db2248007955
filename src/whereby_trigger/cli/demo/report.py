"""The output of the demo on a terminal."""

import math
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whereby_trigger.cli.demo.checks import AssistantRun, Check, CrashResult, ReplicaResult, Sent
from whereby_trigger.store import Record

WIDTH = 132
MARKS, ASCII_MARKS = ("✓", "✗"), ("+", "-")
STATES = {"fired": "green", "skipped": "yellow", "notified": "cyan", "unhandled": "yellow"}


class Report:
    """Print the demo: a line for each step as it happens, then tables, then the checks."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(highlight=False, soft_wrap=True)
        if not console.is_terminal:
            console.width = WIDTH
        self._console = console
        self._passed, self._failed = MARKS if _can_print("".join(MARKS), console.encoding) else ASCII_MARKS

    def event(self, text: str) -> None:
        """Print what happened to a server or the database."""
        self._console.print(f"[bold]{escape(text)}[/]", soft_wrap=False)

    def sent(self, sent: Sent, milliseconds: float) -> None:
        """Print a delivery and its answer."""
        step = sent.step
        colour = "green" if sent.answer == 200 else "red"
        oddity = f"[magenta]{step.oddity}[/]" if step.oddity else ""
        self._console.print(
            f"  {step.happening:46} [{colour}]{sent.answer}[/] [dim]{milliseconds:5.1f} ms[/]  {oddity}"
        )

    def started(self, run: AssistantRun, seconds: float) -> None:
        """Print that an assistant started in a room, and how many seconds after the last event."""
        self._console.print(
            f"  replica {run.replica} starts an assistant in {run.room:11} [dim]{seconds:8.2f} s later[/]"
        )

    def runs(self, result: ReplicaResult) -> None:
        """Print which replica's assistant was in which room, when, and why it left."""
        table = Table(title="\nThe assistants of each room", title_justify="left", box=None, pad_edge=False)
        for column in ("Room", "Replica", "Attempt", "From", "To", "Left because"):
            table.add_column(column, no_wrap=True)
        begin = min((run.started for run in result.runs), default=0.0)
        for run in sorted(result.runs, key=lambda run: (run.room, run.started)):
            killed = run.ended is None and run.replica == result.killed
            reason = "[red]kill -9[/]" if killed else escape(run.reason)
            end = result.end_of(run)
            times = (f"{run.started - begin:.2f} s", "" if math.isinf(end) else f"{end - begin:.2f} s")
            table.add_row(run.room, str(run.replica), str(run.attempt), *times, reason)
        self._console.print(table)

    def decisions(self, result: CrashResult) -> None:
        """Print each delivery with its answer, and for each webhook its decision, the attempt heard, and the reason."""
        self._console.print("\nEach delivery, its answer and its decision")
        self._console.print(_row("Room", "Webhook", "", "Answer", "Decision", "Attempt"), style="bold")
        stored = {record.id: record for record in result.records}
        refusals = iter(result.refusals)
        seen: set[str] = set()
        for sent in result.sent:
            id, webhook = sent.step.webhook.id, sent.step.webhook
            refusal = next(refusals, "") if sent.answer != 200 else ""
            decision, reason = self._decision(stored.get(id), refusal, again=id in seen)
            heard = "" if id in seen else ", ".join(str(one.attempt) for one in result.heard if one.id == id)
            row = _row(webhook.data.room_name, webhook.type, sent.step.oddity, str(sent.answer), decision, heard)
            self._console.print(row, style=STATES.get(decision, "dim" if id in seen else "red"))
            self._console.print(f"          {reason}", style="dim", markup=False)
            seen.add(id)

    def checks(self, checks: Sequence[Check], names: Sequence[tuple[str, str]], seconds: float) -> None:
        """Print the checks as sentences, and the expected and actual value of each that failed."""
        self._console.print("\nChecks")
        for check in checks:
            mark = f"[green]{self._passed}[/]" if check.passed else f"[red]{self._failed}[/]"
            sentence = textwrap.fill(check.sentence, self._console.width - 4).replace("\n", "\n    ")
            self._console.print(f"  {mark} {escape(sentence)}")
            if not check.passed:
                self._console.print(f"      [red]expected[/] {escape(_named(check.expected, names))}")
                self._console.print(f"      [red]actual  [/] {escape(_named(check.actual, names))}")
        failed = sum(not check.passed for check in checks)
        if failed:
            self._console.print(f"\n[bold red]{failed} of {len(checks)} checks failed[/] in {seconds:.1f} s")
        else:
            self._console.print(f"\n[bold green]All {len(checks)} checks passed[/] in {seconds:.1f} s")

    def next_command(self) -> None:
        """Print what to try next."""
        self._console.print("\nTry it with a trigger of your own, in app.py, and with simulated meetings:")
        self._console.print("  whereby-trigger dev\n  whereby-trigger simulate   (in another terminal)")

    @staticmethod
    def _decision(record: Record | None, refusal: str, *, again: bool) -> tuple[str, str]:
        if record is None:
            return "refused", refusal
        if again:
            return "-", f"already stored; {record.deliveries} deliveries counted"
        return str(record.state), record.reason


def _can_print(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _row(*cells: str) -> str:
    return "{:9} {:21} {:12} {:7} {:9} {}".format(*cells).rstrip()


def _named(value: object, names: Sequence[tuple[str, str]]) -> str:
    text = str(value)
    for id, name in names:
        text = text.replace(id, name)
    return text
