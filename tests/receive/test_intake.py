"""The verdict on a delivery, from its headers and its body only."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whereby_trigger.receive import Accepted, Rejected, Rules, intake
from whereby_trigger.store import Arrival, Count, RefusalReason, State
from whereby_trigger.store.presence import UNCOUNTED
from whereby_trigger.testing import sign, webhook
from whereby_trigger.webhook import RoomClientJoined, identify

NOW = 1_800_000_000
SECRET = "s3cret"
SIGNED = Rules(secrets=(SECRET,))
BODY = webhook("room.client.joined", room="/visit-1", id="a1").raw
ODD = b'{"id": "a1", "type": NaN}'


def signed(body: bytes, secret: str = SECRET, at: int = NOW) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"hooks.example"), (b"whereby-signature", sign(secret, body, at).encode())]


def test_an_authentic_webhook_is_accepted_with_all_that_is_to_be_stored() -> None:
    verdict = intake(signed(BODY), BODY, NOW, SIGNED)
    assert isinstance(verdict, Accepted)
    expected = Arrival("a1", "room.client.joined", "acme.whereby.com/visit-1", BODY, NOW, kept_until=NOW + 660)
    assert verdict.arrival == expected
    assert isinstance(verdict.webhook, RoomClientJoined)
    assert verdict.room is not None
    assert verdict.room.url == "https://acme.whereby.com/visit-1"


@pytest.mark.parametrize("secret", ["old", "new"])
def test_any_of_several_secrets_lets_a_webhook_in(secret: str) -> None:
    assert isinstance(intake(signed(BODY, secret), BODY, NOW, Rules(secrets=("old", "new"))), Accepted)


REFUSED = {
    "no signature": [(b"host", b"localhost")],
    "an empty one": [(b"whereby-signature", b"")],
    "a malformed one": [(b"whereby-signature", b"v1=abc")],
    "one that is not ASCII": [(b"whereby-signature", "t=١٢٣,v1=é".encode())],
    "another secret's": signed(BODY, "another"),
    "another body's": signed(BODY + b" "),
    "two, both right": [*signed(BODY), *signed(BODY)],
    "two, one empty": [*signed(BODY), (b"whereby-signature", b"")],
}


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_without_one_right_signature_a_webhook_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    verdict = intake(headers, BODY, NOW, SIGNED)
    assert isinstance(verdict, Rejected)
    assert (verdict.status, verdict.skew) == (401, None)
    assert "signature" in verdict.reason


@pytest.mark.parametrize(("at", "skew"), [(NOW - 301, -301), (NOW + 301, 301)])
def test_a_right_signature_of_another_time_is_refused_and_the_difference_told(at: int, skew: int) -> None:
    verdict = intake(signed(BODY, at=at), BODY, NOW, SIGNED)
    assert isinstance(verdict, Rejected)
    assert (verdict.status, verdict.skew) == (401, skew)


@pytest.mark.parametrize("at", [NOW - 300, NOW + 300])
def test_a_signature_within_the_tolerance_is_right(at: int) -> None:
    assert isinstance(intake(signed(BODY, at=at), BODY, NOW, SIGNED), Accepted)
    assert isinstance(intake(signed(BODY, at=at), BODY, NOW, Rules(secrets=(SECRET,), tolerance=299)), Rejected)


@given(tolerance=st.integers(1, 10**6), early=st.integers(-(10**6), 10**6), later=st.integers(0, 3 * 10**6))
def test_what_is_let_in_is_kept_for_as_long_as_a_copy_of_it_would_be_let_in(
    tolerance: int, early: int, later: int
) -> None:
    rules = Rules(secrets=(SECRET,), tolerance=tolerance)
    delivery = signed(BODY, at=NOW + early)
    first, copy = intake(delivery, BODY, NOW, rules), intake(delivery, BODY, NOW + later, rules)
    if isinstance(first, Accepted) and isinstance(copy, Accepted):
        assert first.arrival.kept_until > NOW + later


def test_what_is_authentic_but_cannot_be_decoded_is_quarantined_by_its_bytes() -> None:
    verdict = intake(signed(ODD), ODD, NOW, SIGNED)
    assert isinstance(verdict, Accepted)
    why = "the body is not valid JSON"
    expected = Arrival(identify(ODD), "", None, ODD, NOW, State.QUARANTINED, why, kept_until=NOW + 660)
    assert verdict == Accepted(expected, None, None)


def test_without_a_secret_what_cannot_be_decoded_is_refused() -> None:
    local = [(b"host", b"localhost:8080")]
    assert intake(local, ODD, NOW, Rules()) == Rejected(RefusalReason.NO_WEBHOOK, "the body is not valid JSON")
    assert intake([], ODD, NOW, Rules(allow_unsigned=True)) == Rejected(
        RefusalReason.NO_WEBHOOK, "the body is not valid JSON"
    )


def test_an_unsigned_body_is_not_even_decoded() -> None:
    verdict = intake([], ODD, NOW, SIGNED)
    assert isinstance(verdict, Rejected)
    assert verdict.status == 401


def test_a_webhook_without_a_valid_room_is_accepted_without_one() -> None:
    for odd in (
        webhook("room.client.joined", subdomain="evil.example/x?"),
        webhook("room.client.joined", subdomain=""),
        webhook("recording.finished"),
    ):
        verdict = intake(signed(odd.raw), odd.raw, NOW, SIGNED)
        assert isinstance(verdict, Accepted)
        assert verdict.room is None
        assert verdict.arrival.room is None


def test_the_subdomain_setting_stands_in_where_a_webhook_has_none() -> None:
    sparse = webhook("room.client.joined", room="/r", subdomain="").raw
    verdict = intake(signed(sparse), sparse, NOW, Rules(secrets=(SECRET,), subdomain="Mine"))
    assert isinstance(verdict, Accepted)
    assert verdict.arrival.room == "mine.whereby.com/r"


LOCAL = ["localhost", "LOCALHOST:8080", "localhost:0", "127.0.0.1", "127.1.2.3", "127.0.0.1:65535", "[::1]", "[::1]:80"]


@pytest.mark.parametrize("host", LOCAL)
def test_without_a_secret_this_machine_is_served(host: str) -> None:
    assert isinstance(intake([(b"host", host.encode())], BODY, NOW, Rules()), Accepted)


ELSEWHERE = [
    "",
    " ",
    "hooks.example",
    "localhost.evil.com",
    "localhost@evil",
    "evil@localhost",
    "localhost:80@evil",
    "localhost:8080:1",
    "localhost:",
    "localhost:http",
    "localhost:123456",
    "localhost/",
    "localhost ",
    "localhost\n",
    "localhost,evil.com",
    "localhost.",
    "xlocalhost",
    "127.0.0.1.evil.com",
    "127.0.0",
    "1127.0.0.1",
    "128.0.0.1",
    "10.0.0.1",
    "0.0.0.0",
    "::1",
    "[::1",
    "[::2]",
    "[::1]evil",
    "[::ffff:127.0.0.1]",
    "2130706433",
    "localhoſt",
    "１２７.0.0.1",
]


@pytest.mark.parametrize("host", ELSEWHERE)
def test_without_a_secret_a_host_that_is_not_this_machine_is_refused(host: str) -> None:
    verdict = intake([(b"host", host.encode())], BODY, NOW, Rules())
    assert isinstance(verdict, Rejected)
    assert verdict.status == 401
    assert verdict.reason.startswith("no secret is set")


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"], ["localhost", "evil.com"]])
def test_without_a_secret_one_host_is_demanded(hosts: list[str]) -> None:
    assert isinstance(intake([(b"host", host.encode()) for host in hosts], BODY, NOW, Rules()), Rejected)


PROXIED = [
    "forwarded",
    "via",
    "x-forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-anything-new",
    "x-original-forwarded-for",
    "x-original-host",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-addr",
    "x-envoy-external-address",
    "x-azure-clientip",
    "x-amzn-trace-id",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-ray",
    "cdn-loop",
    "fastly-client-ip",
    "fly-client-ip",
    "ngrok-skip-browser-warning",
    "tailscale-user-login",
    "a-proxy-nobody-knows-client-ip",
]


@pytest.mark.parametrize("name", PROXIED)
def test_without_a_secret_what_came_through_a_tunnel_is_refused(name: str) -> None:
    headers = [(b"host", b"localhost"), (name.encode(), b"127.0.0.1")]
    verdict = intake(headers, BODY, NOW, Rules())
    assert isinstance(verdict, Rejected)
    assert (verdict.status, "tunnel" in verdict.reason) == (401, True)
    assert isinstance(intake(headers, BODY, NOW, Rules(allow_unsigned=True)), Accepted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:8080"),
        ("origin", ""),
        ("referer", "https://evil.example/"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-site", "None such"),
    ],
)
def test_without_a_secret_what_a_web_page_sends_is_refused(name: str, value: str) -> None:
    verdict = intake([(b"host", b"127.0.0.1:8080"), (name.encode(), value.encode())], BODY, NOW, Rules())
    assert isinstance(verdict, Rejected)
    assert (verdict.status, "web page" in verdict.reason) == (401, True)


def test_without_a_secret_http_1_0_is_refused_since_a_bare_proxy_speaks_it() -> None:
    verdict = intake([(b"host", b"127.0.0.1:8080"), (b"connection", b"close")], BODY, NOW, Rules(), "1.0")
    assert isinstance(verdict, Rejected)
    assert (verdict.status, "HTTP/1.0" in verdict.reason) == (401, True)
    assert isinstance(intake([], BODY, NOW, Rules(allow_unsigned=True), "1.0"), Accepted)
    assert isinstance(intake(signed(BODY), BODY, NOW, SIGNED, "1.0"), Accepted)


LOCAL_CLIENTS = {
    "curl": [("user-agent", "curl/8.5.0"), ("accept", "*/*"), ("content-type", "application/x-www-form-urlencoded")],
    "httpie": [("user-agent", "HTTPie/3"), ("accept-encoding", "gzip"), ("connection", "keep-alive")],
    "Python": [("accept-encoding", "identity"), ("content-type", "application/json")],
    "Node": [
        ("accept-language", "*"),
        ("sec-fetch-mode", "cors"),
        ("user-agent", "node"),
        ("connection", "keep-alive"),
    ],
    "an address bar": [("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
    "traced": [("traceparent", "00-1-1-01"), ("x-request-id", "1"), ("expect", "100-continue")],
}


@pytest.mark.parametrize("fields", LOCAL_CLIENTS.values(), ids=LOCAL_CLIENTS)
def test_without_a_secret_the_clients_of_this_machine_are_served(fields: list[tuple[str, str]]) -> None:
    headers = [(b"host", b"localhost:8080"), *((name.encode(), value.encode()) for name, value in fields)]
    assert isinstance(intake(headers, BODY, NOW, Rules()), Accepted)


def test_with_a_secret_the_way_does_not_matter() -> None:
    headers = [(b"host", b"hooks.example"), (b"x-forwarded-for", b"203.0.113.9"), *signed(BODY)]
    assert isinstance(intake(headers, BODY, NOW, SIGNED), Accepted)


def test_allowing_unsigned_does_not_switch_signatures_off_where_there_is_a_secret() -> None:
    rules = Rules(secrets=(SECRET,), allow_unsigned=True)
    assert isinstance(intake([(b"host", b"localhost")], BODY, NOW, rules), Rejected)


USES_PRESENCE = Rules(secrets=(SECRET,), presence=True)
COUNTED: dict[str, Any] = {
    "room_session_id": "s",
    "num_clients": 3,
    "num_clients_by_role_name": {"host": 2, "recorder": 1},
    "created_at": datetime.fromtimestamp(NOW - 5, UTC),
}


def count_in(body: bytes, rules: Rules = USES_PRESENCE) -> Count | None:
    verdict = intake(signed(body), body, NOW, rules)
    assert isinstance(verdict, Accepted)
    return verdict.arrival.count


def test_who_is_in_a_room_is_read_if_the_program_uses_it() -> None:
    for body in (webhook("room.client.joined", **COUNTED).raw, webhook("room.client.left", **COUNTED).raw):
        assert count_in(body) == Count("acme.whereby.com/visit-1", 2, 1, NOW - 5, "s")
        assert count_in(body, SIGNED) is None


def test_a_count_without_a_time_was_taken_when_it_was_received() -> None:
    body = json.loads(webhook("room.client.joined", **COUNTED).raw)
    del body["createdAt"]
    assert count_in(json.dumps(body).encode()) == Count("acme.whereby.com/visit-1", 2, 1, NOW, "s")


@pytest.mark.parametrize(("ahead", "counted_at"), [(3600, NOW + 3600), (3601, NOW), (70 * 365 * 86400, NOW)])
def test_a_count_from_the_future_was_taken_when_it_was_received(ahead: float, counted_at: float) -> None:
    created_at = datetime.fromtimestamp(NOW + ahead, UTC)
    assert count_in(webhook("room.client.left", **COUNTED | {"created_at": created_at}).raw) == Count(
        "acme.whereby.com/visit-1", 2, 1, counted_at, "s"
    )


SILENT: dict[str, tuple[str, dict[str, Any]]] = {
    "another type": ("room.session.started", {}),
    "no counts after a leave": ("room.client.left", {"num_clients": None, "num_clients_by_role_name": {}}),
    "no counts after a bot's join": ("room.client.joined", {"roleName": "assistant", "num_clients_by_role_name": {}}),
    "fewer than none of one role": ("room.client.left", {"num_clients_by_role_name": {"host": 1, "visitor": -1}}),
    "no room": ("room.client.joined", {"num_clients_by_role_name": {"host": 1}, "subdomain": "not a label"}),
}
WITHOUT_A_NUMBER: dict[str, dict[str, Any]] = {
    "no counts": {"num_clients": None, "num_clients_by_role_name": {}},
    "no counts, and no role": {"roleName": None, "num_clients": None, "num_clients_by_role_name": {}},
    "none by role": {"num_clients": 2, "num_clients_by_role_name": {}},
    "fewer than none": {"num_clients_by_role_name": {"host": -1}},
    "nobody after a join": {"num_clients": 0, "num_clients_by_role_name": {}},
    "no person after a person's join": {
        "roleName": "host",
        "num_clients": 1,
        "num_clients_by_role_name": {"assistant": 1},
    },
    "more than fit": {"num_clients_by_role_name": {"host": 2**31}},
    "more bots than fit": {"num_clients_by_role_name": {"host": 1, "recorder": 2**70}},
}


def sparse(type: str, fields: dict[str, Any]) -> bytes:
    wire = {"num_clients": "numClients", "num_clients_by_role_name": "numClientsByRoleName"}
    body = json.loads(webhook("room.client.joined", created_at=COUNTED["created_at"]).raw)
    body["type"] = type
    body["data"] |= {wire.get(name, name): value for name, value in fields.items()}
    return json.dumps(body).encode()


@pytest.mark.parametrize(("type", "fields"), SILENT.values(), ids=SILENT)
def test_what_says_nothing_of_who_is_in_a_room_carries_no_count(type: str, fields: dict[str, Any]) -> None:
    assert count_in(sparse(type, fields)) is None


@pytest.mark.parametrize("fields", WITHOUT_A_NUMBER.values(), ids=WITHOUT_A_NUMBER)
def test_a_join_without_a_usable_count_says_that_somebody_is_there(fields: dict[str, Any]) -> None:
    said = count_in(sparse("room.client.joined", fields))
    assert said is not None
    assert (said.humans, said.bots, said.at) == (UNCOUNTED, UNCOUNTED, NOW - 5)


@pytest.mark.parametrize("role", ["assistant", ""])
def test_a_bots_join_into_an_empty_room_is_counted_if_its_role_is_known_or_not(role: str) -> None:
    body = webhook("room.client.joined", role_name=role, num_clients=1, num_clients_by_role_name={"assistant": 1}).raw
    said = count_in(body)
    assert said is not None
    assert (said.humans, said.bots) == (0, 1)


def test_an_empty_room_is_counted_though_it_names_no_roles() -> None:
    body = webhook("room.client.left", num_clients=0, num_clients_by_role_name={}).raw
    said = count_in(body)
    assert said is not None
    assert (said.humans, said.bots) == (0, 0)
