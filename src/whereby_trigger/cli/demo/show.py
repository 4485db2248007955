"""How the demo looks on a terminal."""

import math
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whereby_trigger.cli.demo.findings import Check, Found, Sent
from whereby_trigger.cli.demo.presence import Observed, Stay
from whereby_trigger.store import Record

WIDTH = 132
MARKS, ASCII_MARKS = ("✓", "✗"), ("+", "-")
STATES = {"fired": "green", "skipped": "yellow", "notified": "cyan", "unhandled": "yellow"}


class Show:
    """Print the demo: a line for each step as it happens, then the table, then the checks."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(highlight=False, soft_wrap=True)
        if not console.is_terminal:
            console.width = WIDTH
        self._console = console
        self._passed, self._failed = MARKS if _can_print("".join(MARKS), console.encoding) else ASCII_MARKS

    def server(self, what: str) -> None:
        """Tell what became of the server."""
        self._console.print(f"[bold]{escape(what)}[/]", soft_wrap=False)

    def sent(self, sent: Sent, milliseconds: float) -> None:
        """Tell of a delivery and its answer."""
        step = sent.step
        colour = "green" if sent.answer == 200 else "red"
        oddity = f"[magenta]{step.oddity}[/]" if step.oddity else ""
        self._console.print(
            f"  {step.happening:46} [{colour}]{sent.answer}[/] [dim]{milliseconds:5.1f} ms[/]  {oddity}"
        )

    def came(self, stay: Stay, seconds: float) -> None:
        """Tell of an assistant in a room, and how long after what was told last it came."""
        self._console.print(
            f"  the assistant of replica {stay.replica} comes to {stay.room:11} [dim]{seconds:8.2f} s later[/]"
        )

    def stays(self, observed: Observed) -> None:
        """Show which replica's assistant was in which room, when, and why it left."""
        table = Table(title="\nWho was in which room", title_justify="left", box=None, pad_edge=False)
        for column in ("Room", "Replica", "Attempt", "From", "To", "Left because"):
            table.add_column(column, no_wrap=True)
        begin = min((stay.came for stay in observed.stays), default=0.0)
        for stay in sorted(observed.stays, key=lambda stay: (stay.room, stay.came)):
            killed = stay.left is None and stay.replica == observed.killed
            why = "[red]kill -9[/]" if killed else escape(stay.why)
            left = observed.left(stay)
            times = (f"{stay.came - begin:.2f} s", "" if math.isinf(left) else f"{left - begin:.2f} s")
            table.add_row(stay.room, str(stay.replica), str(stay.attempt), *times, why)
        self._console.print(table)

    def table(self, found: Found) -> None:
        """Show each delivery and its answer, and of each webhook the decision, the attempt it was heard at, and why."""
        self._console.print("\nWhat was received, and what became of it")
        self._console.print(_row("Room", "Webhook", "", "Answer", "Decision", "Attempt"), style="bold")
        stored = {record.id: record for record in found.records}
        refusals = iter(found.refusals)
        seen: set[str] = set()
        for sent in found.sent:
            id, webhook = sent.step.webhook.id, sent.step.webhook
            refusal = next(refusals, "") if sent.answer != 200 else ""
            decision, why = self._decision(stored.get(id), refusal, again=id in seen)
            heard = "" if id in seen else ", ".join(str(one.attempt) for one in found.heard if one.id == id)
            row = _row(webhook.data.room_name, webhook.type, sent.step.oddity, str(sent.answer), decision, heard)
            self._console.print(row, style=STATES.get(decision, "dim" if id in seen else "red"))
            self._console.print(f"          {why}", style="dim", markup=False)
            seen.add(id)

    def checks(self, checks: Sequence[Check], names: Sequence[tuple[str, str]], seconds: float) -> None:
        """Show the checks as sentences, and of a failed one what must be and what is."""
        self._console.print("\nChecks")
        for check in checks:
            mark = f"[green]{self._passed}[/]" if check.passed else f"[red]{self._failed}[/]"
            sentence = textwrap.fill(check.sentence, self._console.width - 4).replace("\n", "\n    ")
            self._console.print(f"  {mark} {escape(sentence)}")
            if not check.passed:
                self._console.print(f"      [red]must be[/] {escape(_named(check.must_be, names))}")
                self._console.print(f"      [red]but is [/] {escape(_named(check.is_, names))}")
        failed = sum(not check.passed for check in checks)
        if failed:
            self._console.print(f"\n[bold red]{failed} of {len(checks)} checks failed[/] in {seconds:.1f} s")
        else:
            self._console.print(f"\n[bold green]All of it came out as it must[/] in {seconds:.1f} s")

    @staticmethod
    def _decision(record: Record | None, refusal: str, *, again: bool) -> tuple[str, str]:
        if record is None:
            return "refused", refusal
        if again:
            return "-", f"stored already, counted: {record.deliveries} deliveries"
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
