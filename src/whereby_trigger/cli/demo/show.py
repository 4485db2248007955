"""How the demo looks on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whereby_trigger.cli.demo.findings import Check, Found, Sent
from whereby_trigger.store import Record

WIDTH = 132
STATES = {"fired": "green", "skipped": "yellow", "notified": "cyan", "unhandled": "yellow"}


class Show:
    """Print the demo: a line for each step as it happens, then the table, then the checks."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(highlight=False, soft_wrap=True)
        if not console.is_terminal:
            console.width = WIDTH
        self._console = console

    def server(self, what: str) -> None:
        """Tell what became of the server."""
        self._console.print(f"[bold]{escape(what)}[/]")

    def sent(self, sent: Sent, milliseconds: float) -> None:
        """Tell of a delivery and its answer."""
        step = sent.step
        colour = "green" if sent.answer == 200 else "red"
        oddity = f"[magenta]{step.oddity}[/]" if step.oddity else ""
        self._console.print(
            f"  {step.happening:48} [dim]{step.webhook.type:21}[/] [{colour}]{sent.answer}[/] "
            f"[dim]{milliseconds:5.1f} ms[/]  {oddity}"
        )

    def table(self, found: Found) -> None:
        """Show each delivery and its answer, and of each webhook the decision, the attempt it was heard at, and why."""
        table = Table(
            title="\nWhat was received, and what became of it", title_justify="left", box=None, pad_edge=False
        )
        for column in ("Room", "Webhook", "", "Answer", "Decision", "Attempt", "Why"):
            table.add_column(column, no_wrap=column != "Why")
        stored = {record.id: record for record in found.records}
        refusals = iter(found.refusals)
        seen: set[str] = set()
        for sent in found.sent:
            id = sent.step.webhook.id
            webhook = sent.step.webhook
            refusal = next(refusals, "") if sent.answer != 200 else ""
            decision, why = self._decision(stored.get(id), refusal, again=id in seen)
            heard = "" if id in seen else ", ".join(str(one.attempt) for one in found.heard if one.id == id)
            row = (webhook.data.room_name, webhook.type, sent.step.oddity, str(sent.answer), decision, heard, why)
            table.add_row(*row, style="dim" if id in seen else "")
            seen.add(id)
        self._console.print(table)

    def checks(self, checks: Sequence[Check], names: Sequence[tuple[str, str]], seconds: float) -> None:
        """Show the checks as sentences, and of a failed one what must be and what is."""
        self._console.print("\nChecks")
        for check in checks:
            mark = "[green]✓[/]" if check.passed else "[red]✗[/]"
            self._console.print(f"  {mark} {escape(check.sentence)}")
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
            return "[red]refused[/]", escape(refusal)
        if again:
            return "-", f"stored already, counted: {record.deliveries} deliveries"
        colour = STATES.get(record.state, "red")
        return f"[{colour}]{record.state}[/]", escape(record.reason)


def _named(value: object, names: Sequence[tuple[str, str]]) -> str:
    text = str(value)
    for id, name in names:
        text = text.replace(id, name)
    return text
