"""Who may be served without a secret: nobody beyond this machine, unless a setting asks for it."""

import asyncio
from typing import Any

import pytest

from whereby_trigger import ConfigError, LifecycleError, Trigger
from whereby_trigger.config import Settings, check_exposure, resolve


def settings(**keywords: Any) -> Settings:
    return resolve(keywords).settings


@pytest.fixture
def on_a_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "3000")


@pytest.mark.parametrize("host", [None, "127.0.0.1", "localhost", "::1"])
def test_without_a_secret_this_machine_may_be_served(host: str | None) -> None:
    check_exposure(settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "hooks.example", "127.0.0.1.evil.com"])
def test_without_a_secret_an_address_that_others_reach_is_an_error(host: str) -> None:
    with pytest.raises(ConfigError, match="would serve other machines") as caught:
        check_exposure(settings(host=host))
    assert "WHEREBY_WEBHOOK_SECRET" in str(caught.value)
    assert "allow_unsigned=True" in str(caught.value)
    check_exposure(settings(host=host, secret="s"))
    check_exposure(settings(host=host, allow_unsigned=True))


@pytest.mark.usefixtures("on_a_platform")
def test_without_a_secret_a_platform_that_sends_traffic_is_an_error() -> None:
    with pytest.raises(ConfigError, match="PORT is set, so outside traffic is expected here"):
        check_exposure(settings())
    with pytest.raises(ConfigError, match="PORT is set"):
        asyncio.run(Trigger().serve())
    check_exposure(settings(secret="s"))
    check_exposure(settings(allow_unsigned=True))
    check_exposure(settings(host="127.0.0.1"))


def test_a_blank_secret_is_an_error_whatever_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREBY_WEBHOOK_SECRET", "")
    with pytest.raises(ConfigError, match="WHEREBY_WEBHOOK_SECRET holds a blank secret"):
        asyncio.run(Trigger(allow_unsigned=True).serve())


@pytest.mark.anyio
async def test_a_mounted_trigger_needs_a_secret_unless_it_is_said_not_to() -> None:
    with pytest.raises(ConfigError, match=r"a mounted trigger needs a secret"):
        async with Trigger().lifespan():
            raise LifecycleError("it was let in")
