"""The room that a webhook names, and that no payload names anything but a room of Whereby's."""

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from whereby_trigger.errors import ConfigError
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import (
    ROOM_TYPES,
    WEBHOOK_TYPES,
    AssistantRequested,
    RoomData,
    RoomIdentity,
    UnknownWebhook,
    room_from_url,
    room_of,
    why_no_room,
)


def requested(room_name: str = "/visit-1", subdomain: str = "acme") -> AssistantRequested:
    return AssistantRequested(id="a1", data=RoomData(room_name=room_name, subdomain=subdomain))


@pytest.mark.parametrize("type", ROOM_TYPES)
def test_the_seven_types_that_name_a_room_have_it(type: str) -> None:
    assert room_of(webhook(type, room="/visit-1", subdomain="acme")) == RoomIdentity(
        key="acme.whereby.com/visit-1",
        url="https://acme.whereby.com/visit-1",
        name="/visit-1",
        subdomain="acme",
    )


@pytest.mark.parametrize("type", [type for type in WEBHOOK_TYPES if type not in ROOM_TYPES])
def test_the_other_types_have_no_room_whatever_the_setting(type: str) -> None:
    assert room_of(webhook(type), "acme") is None
    assert why_no_room(webhook(type), "acme") == f"a {type} webhook names no room"


def test_an_unknown_type_has_no_room() -> None:
    waved = UnknownWebhook(id="a1", type="room.waved", data={"roomName": "/r", "subdomain": "acme"})  # type: ignore[arg-type]
    assert room_of(waved, "acme") is None
    assert why_no_room(waved) == "a room.waved webhook names no room"


SAME_ROOM = {
    "as it is": ("/visit-1", "acme"),
    "no slash": ("visit-1", "acme"),
    "two slashes": ("//visit-1", "acme"),
    "a slash at the end": ("/visit-1/", "acme"),
    "upper case in the subdomain": ("/visit-1", "ACME"),
}


@pytest.mark.parametrize(("name", "subdomain"), SAME_ROOM.values(), ids=SAME_ROOM)
def test_one_room_has_one_key_and_one_url(name: str, subdomain: str) -> None:
    assert room_of(requested(name, subdomain)) == room_of(requested())


def test_the_case_of_a_room_s_path_counts() -> None:
    assert room_of(requested("/Visit-1")) != room_of(requested("/visit-1"))


def test_the_setting_is_used_only_where_the_webhook_has_no_subdomain() -> None:
    without, with_one = room_of(requested(subdomain=""), "Acme"), room_of(requested(subdomain="other"), "acme")
    assert without is not None
    assert with_one is not None
    assert without.url == "https://acme.whereby.com/visit-1"
    assert with_one.url == "https://other.whereby.com/visit-1"


def test_the_setting_does_not_stand_in_for_a_hostile_subdomain() -> None:
    assert room_of(requested(subdomain="evil.example/x?"), "acme") is None


NO_LABEL = {
    "another host": "evil.example/x?",
    "a path": "evil/",
    "a port": "acme:443",
    "userinfo": "user@acme",
    "two labels": "a.acme",
    "a dot at the end": "acme.",
    "only a dot": ".",
    "a space": "acme ",
    "a line break at the end": "acme\n",
    "a hyphen at the start": "-acme",
    "a hyphen at the end": "acme-",
    "an underscore": "ac_me",
    "64 characters": "a" * 64,
    "a percent sign": "acme%2f",
    "a backslash": "acme\\",
    "a letter that lower-cases into ASCII": "acme\N{KELVIN SIGN}",
    "a full-width letter": "acme\N{FULLWIDTH LATIN SMALL LETTER E}",
    "a lone surrogate": "acme\ud800",
    "NUL": "acme\0",
}


@pytest.mark.parametrize("subdomain", NO_LABEL.values(), ids=NO_LABEL)
def test_a_subdomain_is_one_host_label_or_there_is_no_room(subdomain: str) -> None:
    assert room_of(requested(subdomain=subdomain)) is None
    assert why_no_room(requested(subdomain=subdomain)) == "the webhook's subdomain is not a host label"
    assert why_no_room(requested(subdomain=""), subdomain) == "the subdomain setting is not a host label"


@pytest.mark.parametrize("subdomain", ["a", "7", "a-b", "xn--bcher-kva", "a" * 63])
def test_any_one_host_label_is_a_subdomain(subdomain: str) -> None:
    room = room_of(requested(subdomain=subdomain))
    assert room is not None
    assert room.subdomain == subdomain


ENCODED = {
    "/a b": "/a%20b",
    "/a?roomKey=x": "/a%3FroomKey%3Dx",
    "/a#b": "/a%23b",
    "/a%20b": "/a%20b",
    "/a%2e": "/a.",
    "/m%C3%B8dested": "/m%C3%B8dested",
    "/100%": "/100%25",
    "/%ff": "/%25ff",
    "/mødested": "/m%C3%B8dested",
    "/a\\b": "/a%5Cb",
    "/@evil.example": "/%40evil.example",
    "//evil.example/x": "/evil.example/x",
    "/a/b": "/a/b",
    "/a..b": "/a..b",
    "/Visit_1-2.3~": "/Visit_1-2.3~",
}


@pytest.mark.parametrize(("name", "path"), ENCODED.items(), ids=ENCODED)
def test_a_room_name_is_nothing_but_the_path_of_its_url(name: str, path: str) -> None:
    room = room_of(requested(name))
    assert room is not None
    assert room.url == f"https://acme.whereby.com{path}"


NO_ROOM = {
    "": "no room name in the webhook",
    "/": "no room name in the webhook",
    "///": "no room name in the webhook",
    ".": "a part of the room name is nothing but dots",
    "/..": "a part of the room name is nothing but dots",
    "/...": "a part of the room name is nothing but dots",
    "/../x": "a part of the room name is nothing but dots",
    "/x/./y": "a part of the room name is nothing but dots",
    "/%2e%2e/x": "a part of the room name is nothing but dots",
    "/x/..": "a part of the room name is nothing but dots",
    "/a\nb": "the room name has characters that no URL can carry",
    "/a\0": "the room name has characters that no URL can carry",
    "/\ud800": "the room name has characters that no URL can carry",
}


@pytest.mark.parametrize(("name", "reason"), NO_ROOM.items(), ids=map(ascii, NO_ROOM))
def test_a_name_that_leads_elsewhere_is_no_room_and_the_reason_is_told(name: str, reason: str) -> None:
    assert room_of(requested(name)) is None
    assert why_no_room(requested(name)) == reason


def test_a_missing_subdomain_is_told_with_its_remedy() -> None:
    assert why_no_room(requested(subdomain="")) == "no subdomain in the webhook: set subdomain=…"


def test_there_is_no_reason_where_there_is_a_room() -> None:
    assert why_no_room(requested()) == ""


ANY_TEXT = st.text(st.characters())
PIECES = st.sampled_from(
    ["/", "..", ".", "\\", "@", ":", "?", "#", "%", "%2e", "%2f", "evil.example", "a", " ", "\t", "é"]
)


@given(
    name=ANY_TEXT | st.lists(PIECES).map("".join),
    subdomain=ANY_TEXT | st.lists(PIECES, max_size=4).map("".join) | st.just("acme"),
    setting=st.none() | ANY_TEXT | st.just("acme"),
)
@example(name="/x", subdomain="evil.example/x?", setting=None)
@example(name="\\@evil.example", subdomain="acme", setting=None)
@example(name="/a%2f..%2fb", subdomain="acme", setting=None)
def test_no_payload_leads_outside_whereby(name: str, subdomain: str, setting: str | None) -> None:
    named = requested(name, subdomain)
    room = room_of(named, setting)
    assert (room is None) == bool(why_no_room(named, setting))
    if room is None:
        return
    url = urlsplit(room.url)
    label, _, domain = (url.hostname or "").partition(".")
    assert (url.scheme, domain) == ("https", "whereby.com")
    assert label == room.subdomain == (subdomain or setting or "").lower()
    assert url.netloc == url.hostname
    assert (url.username, url.password, url.port, url.query, url.fragment) == (None, None, None, "", "")
    assert room.url.isascii()
    assert room.url == f"https://{room.key}"
    assert not {".", ".."} & set(url.path.split("/"))
    assert room.name == unquote(url.path)
    assert room.name[0] == "/" != room.name[1]
    assert room_from_url(room.url) == room


PASTED = {
    "a room key": "https://acme.whereby.com/visit-1?roomKey=abc",
    "a fragment": "https://acme.whereby.com/visit-1#x",
    "a slash at the end": "https://acme.whereby.com/visit-1/",
    "upper case": "HTTPS://ACME.Whereby.com/visit-1",
    "white space around": "  https://acme.whereby.com/visit-1\n",
}


@pytest.mark.parametrize("url", PASTED.values(), ids=PASTED)
def test_a_pasted_url_is_the_room_without_its_extras(url: str) -> None:
    assert room_from_url(url) == room_of(requested())


NOT_A_ROOM = {
    "nothing": "",
    "a name": "visit-1",
    "no scheme": "acme.whereby.com/visit-1",
    "http": "http://acme.whereby.com/visit-1",
    "another host": "https://acme.example/visit-1",
    "a host that only ends alike": "https://evilwhereby.com/visit-1",
    "the domain in front": "https://acme.whereby.com.evil.example/visit-1",
    "no subdomain": "https://whereby.com/visit-1",
    "two labels": "https://a.b.whereby.com/visit-1",
    "userinfo": "https://user@acme.whereby.com/visit-1",
    "a port": "https://acme.whereby.com:8443/visit-1",
    "no room": "https://acme.whereby.com/",
    "no path": "https://acme.whereby.com",
    "dots": "https://acme.whereby.com/..",
    "encoded dots": "https://acme.whereby.com/%2e%2e/x",
    "an encoded NUL": "https://acme.whereby.com/a%00",
    "not UTF-8": "https://acme.whereby.com/%ff",
    "a broken host": "https://[acme.whereby.com/x",
}


@pytest.mark.parametrize("url", NOT_A_ROOM.values(), ids=NOT_A_ROOM)
def test_what_is_no_room_s_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError, match=r"https://your-subdomain\.whereby\.com/your-room"):
        room_from_url(url)


@given(st.text(st.characters()) | st.lists(PIECES).map(lambda pieces: "https://" + "".join(pieces)))
def test_any_text_is_a_room_s_url_or_refused(text: str) -> None:
    try:
        room = room_from_url(text)
    except ConfigError:
        return
    assert room_from_url(room.url) == room
