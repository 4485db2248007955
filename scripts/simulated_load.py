"""Simulate ten minutes of meetings with every fault against a trigger, and compare the report with its store.

`.venv/bin/python scripts/simulated_load.py [--minutes N] [--meetings-per-minute N] [--seed N]` starts the trigger in a
process of its own, on a new SQLite file. It exits with 1 if an acknowledged webhook is not stored, or if a number of
the report is not the store's.
"""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from whereby_trigger.store import Query, RefusalReason, Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing.program import Program
from whereby_trigger.testing.sender import Address, Sender
from whereby_trigger.testing.simulator import Faults, Load, SimulationReport, plan, send_all

FAULTS = Faults(duplicates=0.1, reorder=0.1, late_ends=0.1, lost_ends=0.1, bad_signatures=0.1)
APP = """
from whereby_trigger import Session, Trigger, is_human

trigger = Trigger(webhook_triggers={"room.client.joined": is_human})


@trigger.assistant
async def scribe(session: Session) -> None:
    await session.ended
"""


async def simulated(load: Load, seed: int) -> bool:
    """Send the meetings and print the report; return True if the report and the store agree."""
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="whereby-trigger-load-") as folder:
        (Path(folder) / "app.py").write_text(APP, encoding="utf-8")
        command = [sys.executable, "-m", "whereby_trigger", "start", "--host", "127.0.0.1", "--port", "0"]
        # Assistants of a meeting whose end was lost would stay for an hour.
        environment = {"WHEREBY_WEBHOOK_SECRET": secret, "WHEREBY_TRIGGER_DRAIN_TIMEOUT": "5"}
        trigger = await Program.start(command, cwd=Path(folder), env=environment)
        try:
            sender = Sender(Address.local(await trigger.listening()), secret)
            planned = plan(load, FAULTS, begin=datetime.now(UTC), seed=seed)
            report = await send_all(planned, sender, asyncio.Event())
            sender.close()
            code = await trigger.stop()
        finally:
            await trigger.kill()
        store = store_for(f"sqlite:///{folder}/whereby-trigger.db")
        await store.open_readonly()
        try:
            return await compared(report, store, code)
        finally:
            await store.close()


async def compared(report: SimulationReport, store: Store, code: int) -> bool:
    """Print each number of the report beside the store's; return True if all are equal."""
    records = await store.find(Query())
    stored = {record.id for record in records}
    refused: Counter[str] = Counter()
    for counted in await store.refusals(0, datetime.now(UTC).timestamp()):
        refused[counted.reason] += counted.count
    numbers = {
        "acknowledged webhooks that are not stored": (0, len(report.acknowledged - stored)),
        "stored webhooks": (len(report.acknowledged), len(stored)),
        "answers of 200, and deliveries": (report.answers[200], sum(record.deliveries for record in records)),
        "answers of 401, and refusals": (report.answers[401], refused[RefusalReason.WRONG_SIGNATURE]),
        "all other answers, and refusals": (
            sum(report.answers.values()) - report.answers[200] - report.answers[401],
            refused.total() - refused[RefusalReason.WRONG_SIGNATURE],
        ),
        "wrong answers, and those given up": (0, report.wrong + report.given_up),
        "the trigger's exit code": (0, code),
    }
    print(f"{report.sent} sent in {report.requests} requests; p99 {report.percentile(0.99) * 1000:.1f} ms")
    print("decisions:", json.dumps(Counter(str(record.state) for record in records)))
    for name, (expected, actual) in numbers.items():
        print(f"{name}: {expected} and {actual}{'' if expected == actual else ', which differ'}")
    return all(expected == actual for expected, actual in numbers.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--meetings-per-minute", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    load = Load(asked.meetings_per_minute, asked.minutes, rooms=150)
    return 0 if asyncio.run(simulated(load, asked.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
