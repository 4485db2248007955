"""The receiving, storing and deciding stages of a trigger on a real store, without a port."""

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.sqlite_place import crash
from whereby_trigger import Trigger, Webhook
from whereby_trigger.config import Settings, resolve
from whereby_trigger.decide import UserCode
from whereby_trigger.receive import Accepted, Rules, intake
from whereby_trigger.replica import Replica
from whereby_trigger.store import Added, Decision, Query, Record
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing.clock import MovableClock


class Stage:
    """Run a trigger's stages on `stage.db` in a folder for an `async with` block; settings are keywords."""

    def __init__(self, trigger: Trigger, folder: Path, **settings: Any) -> None:
        self.trigger = trigger
        self.settings = settings_for(folder, **settings)
        self.store = store_for(self.settings.store, self.settings.lease_ttl)
        self.clock = MovableClock()
        self._decisions: dict[str, asyncio.Future[Decision]] = {}
        self.decided: list[Decision] = []

    async def __aenter__(self) -> "Stage":
        self.user_code = UserCode(self.settings.predicate_timeout)
        self.running = Replica(
            self.settings,
            self.store,
            self.trigger.predicates,
            self.trigger.emitter,
            self.user_code,
            clock=self.clock,
        )
        self.running.dispatcher.observe(self._note)
        await self.running.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.running.close(0)

    async def deliver(self, webhook: Webhook, received_at: float | None = None) -> Added:
        """Store a webhook and hand it on, as its delivery would."""
        added = await self.store_only(webhook, received_at)
        self.hand_on(webhook, added, received_at)
        return added

    async def store_only(self, webhook: Webhook, received_at: float | None = None) -> Added:
        """Store a webhook without handing it on, as if the commit's answer was lost."""
        return await self.store.add(self._verdict(webhook, received_at).arrival)

    def hand_on(self, webhook: Webhook, added: Added, received_at: float | None = None) -> None:
        """Hand on what was only stored."""
        self.running.endpoint.receiver.hand_on(self._verdict(webhook, received_at), added, time.monotonic())

    async def decision(self, webhook: Webhook) -> Decision:
        """Wait for the decision on a webhook."""
        return await self._future(webhook.id)

    def forget(self, webhook: Webhook) -> None:
        """Make `decision` wait for the next decision on a webhook, not for the last."""
        self._decisions.pop(webhook.id, None)

    def jump(self, seconds: float) -> None:
        """Move forward the clock that decides when holds are due; the store's clock does not change."""
        self.clock.move_to(self.clock.boot() + seconds)

    async def records(self) -> list[Record]:
        """Read what the store holds, in order of arrival."""
        return (await self.store.find(Query()))[::-1]

    def _verdict(self, webhook: Webhook, received_at: float | None) -> Accepted:
        return verdict_on(webhook, self.settings, received_at, presence=self.trigger.predicates.use_presence)

    def _future(self, id: str) -> "asyncio.Future[Decision]":
        return self._decisions.setdefault(id, asyncio.get_running_loop().create_future())

    def _note(self, decision: Decision) -> None:
        self.decided.append(decision)
        if not self._future(decision.id).done():
            self._future(decision.id).set_result(decision)


def settings_for(folder: Path, **settings: Any) -> Settings:
    """Resolve settings for a store in a folder, free of the environment."""
    return resolve({"store": f"sqlite:///{folder}/stage.db", "allow_unsigned": True} | settings, environ={}).settings


def verdict_on(
    webhook: Webhook, settings: Settings, received_at: float | None = None, *, presence: bool = True
) -> Accepted:
    """Judge a webhook's delivery, received now by default."""
    now = time.time() if received_at is None else received_at
    verdict = intake((), webhook.raw, now, Rules(allow_unsigned=True, subdomain=settings.subdomain, presence=presence))
    assert isinstance(verdict, Accepted)
    return verdict


async def leave_pending(folder: Path, *webhooks: Webhook, received_at: float | None = None) -> None:
    """Store webhooks as a replica that dies before it decides any."""
    settings = settings_for(folder)
    store = SqliteStore(settings.store)
    await store.open(lambda: None)
    await asyncio.gather(*(store.add(verdict_on(webhook, settings, received_at).arrival) for webhook in webhooks))
    await crash(store)
    await store.close()
