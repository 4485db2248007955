"""`whereby-trigger simulate`: send simulated meetings to any receiver, as Whereby sends them."""

import asyncio
import contextlib
import json
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from whereby_trigger.cli.arguments import app_option, resolved, store_to_read
from whereby_trigger.cli.output import FAILED, Failed, note, show_table
from whereby_trigger.cli.send import TargetAddress, address_of, address_of_dev
from whereby_trigger.config import NAMES, read_subdomain
from whereby_trigger.errors import StoreError
from whereby_trigger.process import many_files
from whereby_trigger.store import Query

if TYPE_CHECKING:
    from whereby_trigger.testing.sender import Address
    from whereby_trigger.testing.simulator import Faults, Load, Planned, SimulationReport

SHARE = click.FloatRange(0, 1)
YEAR = 365 * 24 * 60.0
IDS_AT_ONCE = 500
"""Ids that are looked up in a store by one query."""


@click.command(short_help="Send simulated meetings, as Whereby sends them, and report.")
@click.argument("url", required=False)
@click.option("--meetings-per-minute", metavar="N", type=click.FloatRange(0.1, 60_000), default=10.0, show_default=True)
@click.option("--minutes", metavar="N", type=click.FloatRange(0, YEAR, min_open=True), default=1.0, show_default=True)
@click.option(
    "--people", metavar="N", type=click.IntRange(1, 200), default=3, show_default=True, help="At most, in each meeting."
)
@click.option("--rooms", metavar="N", type=click.IntRange(1), default=20, show_default=True)
@click.option("--seed", metavar="N", type=int, help="Makes the same meetings again. [default: a random one]")
@click.option(
    "--duplicates", metavar="SHARE", type=SHARE, default=0.0, help="Webhooks that are sent twice, from 0 to 1."
)
@click.option("--reorder", metavar="SHARE", type=SHARE, default=0.0, help="Webhooks that others overtake.")
@click.option("--late-ends", metavar="SHARE", type=SHARE, default=0.0, help="Ends of sessions that come late.")
@click.option("--lost-ends", metavar="SHARE", type=SHARE, default=0.0, help="Ends of sessions that never come.")
@click.option("--bad-signatures", metavar="SHARE", type=SHARE, default=0.0, help="Forged webhooks for each real one.")
@click.option(
    "--script", metavar="FILE", type=click.File(encoding="utf-8"), help="Send this written meeting instead; - is stdin."
)
@click.option("--secret", metavar="SECRET", help="Sign with this secret. [default: that of `dev`]")
@click.option("--subdomain", metavar="NAME", help="The rooms' subdomain. [default: acme]")
@click.option("--store", metavar="URL", help="Check that this store has all that was acknowledged.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@app_option
def simulate(
    url: str | None,
    meetings_per_minute: float,
    minutes: float,
    people: int,
    rooms: int,
    seed: int | None,
    duplicates: float,
    reorder: float,
    late_ends: float,
    lost_ends: float,
    bad_signatures: float,
    script: TextIO | None,
    secret: str | None,
    subdomain: str | None,
    store: str | None,
    as_json: bool,
    app: str | None,
) -> None:
    """Send simulated meetings to URL, as Whereby sends them, and report what came of it.

    Without URL, they go to where `dev` listens. A delivery must be answered within 5 seconds; after a 5xx or no answer
    in time it is sent twice more, after a 4xx it is not. Exits with 1 if a webhook was refused, redirected or given
    up, if a forged one was let in, or if the store lacks one that was acknowledged.
    """
    from whereby_trigger.testing.simulator import Faults, Load, plan

    chosen = read_subdomain("--subdomain", subdomain) if subdomain is not None else "acme"
    settings = resolved(app, {"secret": secret, "store": store}, needed=("secret",) if url else NAMES).settings
    address = resolve_address(address_of(url or address_of_dev(settings)))
    seed = secrets.randbelow(10**6) if seed is None else seed
    begin = datetime.now(UTC)
    if script is None:
        load = Load(meetings_per_minute, minutes, rooms, people, str(chosen))
        faults = Faults(duplicates, reorder, late_ends, lost_ends, bad_signatures)
        planned = plan(load, faults, begin=begin, seed=seed)
        note(f"{address.name}: {_described(load, faults)}; --seed {seed} repeats it")
    else:
        planned = _played(script, begin, str(chosen))
    with many_files():
        report, short = asyncio.run(_send(planned, address, next(iter(settings.secret), None)))
    missing, unread = None, None
    try:
        missing = asyncio.run(_missing(settings.store, report)) if store is not None else None
    except StoreError as error:
        unread = error
    (_show_json if as_json else _show)(report, missing)
    if short:
        raise Failed(f"some requests were not sent: this command was out of {short}; raise the limit, or send less")
    if unread is not None:
        raise unread
    if report.wrong or report.given_up or missing:
        raise click.exceptions.Exit(FAILED)


def resolve_address(target: TargetAddress) -> "Address":
    """Resolve a URL's host to all its addresses, over which deliveries are spread; raises Failed if there is none."""
    from whereby_trigger.testing.sender import Address

    port = target.port or (443 if target.tls else 80)
    try:
        found = socket.getaddrinfo(target.host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Failed(f"cannot find the host of {target.url}: {error.strerror or error}; check the URL") from error
    hosts = dict.fromkeys((str(address[0]), port) for *_, address in found)
    host = f"[{target.host}]" if ":" in target.host else target.host
    name = host if target.port is None else f"{host}:{target.port}"
    return Address(tuple(hosts), name, target.target, target.tls)


def _played(script: TextIO, begin: datetime, subdomain: str) -> "Iterator[Planned]":
    from whereby_trigger.testing.simulator import ScriptError, play, read_script

    try:
        return play(read_script(script), begin=begin, subdomain=subdomain)
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--script {script.name} is not UTF-8: save it as UTF-8") from error
    except ScriptError as error:
        raise click.UsageError(f"--script {script.name}: {error}") from error


async def _send(planned: "Iterator[Planned]", address: "Address", secret: str | None) -> "tuple[SimulationReport, str]":
    """Send it, and return the report, and what this process was out of for some of it."""
    from whereby_trigger.testing.sender import Sender
    from whereby_trigger.testing.simulator import send_all

    stop = asyncio.Event()
    sender = Sender(address, secret)
    with _interruptible(stop), _progress() as show:
        try:
            return await send_all(planned, sender, stop, show), sender.short
        finally:
            sender.close()


@contextlib.contextmanager
def _interruptible(stop: asyncio.Event) -> Iterator[None]:
    """Stop the sending at the first Ctrl-C, so that the report is still printed; a second one ends the program."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    # Windows' event loop has no signal handlers: there the first Ctrl-C ends the program.
    with contextlib.suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)


@contextlib.contextmanager
def _progress() -> "Iterator[Callable[[SimulationReport], None]]":
    """Show how far it is, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("sending")

        def show(report: "SimulationReport") -> None:
            words = f"{report.sent} sent, {len(report.acknowledged)} acknowledged, {report.given_up} given up"
            progress.update(task, description=words)

        yield show


async def _missing(url: str, report: "SimulationReport") -> list[str]:
    """Return the ids that were acknowledged and are not in the store."""
    acknowledged = sorted(report.acknowledged)
    missing: list[str] = []
    async with store_to_read(url) as store:
        for start in range(0, len(acknowledged), IDS_AT_ONCE):
            ids = tuple(acknowledged[start : start + IDS_AT_ONCE])
            found = {record.id for record in await store.find(Query(ids=ids))}
            missing += [id for id in ids if id not in found]
    return missing


def _described(load: "Load", faults: "Faults") -> str:
    meetings = max(1, round(load.meetings_per_minute * load.minutes))
    with_faults = [
        f"{name.replace('_', ' ')} {share:g}" for name in faults.__struct_fields__ if (share := getattr(faults, name))
    ]
    return ", ".join([f"{meetings} meetings in {load.minutes:g} min, {load.rooms} rooms", *with_faults])


def _figures(report: "SimulationReport", missing: list[str] | None) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "sent": report.sent,
        "requests": report.requests,
        "acknowledged": len(report.acknowledged),
        "retried": report.retried,
        "given_up": report.given_up,
        "wrong": report.wrong,
        "answers": {str(status): number for status, number in sorted(report.answers.items())},
        "unanswered": dict(report.unanswered.most_common()),
        "ms": {name: round(report.percentile(share) * 1000, 1) for name, share in PERCENTILES.items()},
    }
    return figures if missing is None else figures | {"missing": missing}


PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


def _show_json(report: "SimulationReport", missing: list[str] | None) -> None:
    click.echo(json.dumps(_figures(report, missing)))


def _show(report: "SimulationReport", missing: list[str] | None) -> None:
    figures = _figures(report, missing)
    given = report.answers - report.unanswered_by_status
    answers = [f"{report.unanswered.total()} x no answer"] if report.unanswered else []
    answers += [f"{number} x {status}" for status, number in sorted(given.items())]
    rows = [
        ("sent", f"{report.sent} webhooks in {report.requests} requests"),
        ("answers", ", ".join(answers) or "none"),
        ("acknowledged", f"{len(report.acknowledged)} different webhooks"),
        ("retried", str(report.retried)),
        ("given up", str(report.given_up)),
        ("answered within", ", ".join(f"{name} {ms:g} ms" for name, ms in figures["ms"].items())),
    ]
    if report.unanswered:
        reasons = [f"{number} x {reason}" for reason, number in report.unanswered.most_common(3)]
        rows.insert(2, ("no answer", ", ".join(reasons)))
    if report.wrong:
        rows.append(
            (
                "wrong answers",
                f"{report.wrong}: a 4xx for a real webhook, a redirect, or a forged one that was not refused",
            )
        )
    if missing is not None:
        rows.append(
            (
                "in the store",
                "all that was acknowledged" if not missing else f"{len(missing)} are missing: {', '.join(missing[:3])}",
            )
        )
    show_table(rows)
