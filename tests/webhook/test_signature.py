"""Who may speak for Whereby, and for how long."""

import hashlib
import hmac
import json
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whereby_trigger.errors import SignatureError
from whereby_trigger.webhook import sign, verify

SECRET = "correct horse"
RETIRED = "battery staple"
BODY = '{"id":"1","data":{"displayName":"Zoë"}}'.encode()
NOW = 1_700_000_000


def refusal(header: bytes | None, body: bytes = BODY, now: float = NOW, secret: str = SECRET) -> SignatureError:
    with pytest.raises(SignatureError) as caught:
        verify(header, body, [secret], now)
    return caught.value


def signed(body: bytes = BODY, at: int = NOW, secret: str = SECRET) -> bytes:
    return sign(secret, body, at).encode()


def test_the_signature_is_the_hmac_of_time_dot_body_in_hex() -> None:
    expected = hmac.new(SECRET.encode(), f"{NOW}.".encode() + BODY, hashlib.sha256).hexdigest()
    assert sign(SECRET, BODY, NOW) == f"t={NOW},v1={expected}"


@given(secret=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), body=st.binary())
def test_whatever_was_signed_verifies(secret: str, body: bytes) -> None:
    verify(signed(body, secret=secret), body, [secret], NOW)


def test_the_raw_bytes_count_and_not_the_json_they_mean() -> None:
    same_meaning = json.dumps(json.loads(BODY)).encode()
    assert same_meaning != BODY
    assert str(refusal(signed(), same_meaning)) == "wrong signature"


def test_any_of_several_secrets_may_match() -> None:
    for secret in (SECRET, RETIRED):
        verify(signed(secret=secret), BODY, ["another", RETIRED, SECRET], NOW)


def test_a_secret_that_was_rotated_out_matches_no_more() -> None:
    assert str(refusal(signed(secret=RETIRED))) == "wrong signature"


def test_no_secret_accepts_nothing() -> None:
    with pytest.raises(SignatureError, match="wrong signature"):
        verify(signed(), BODY, [], NOW)


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_a_blank_secret_accepts_nothing(blank: str) -> None:
    assert str(refusal(signed(secret=blank), secret=blank)) == "wrong signature"


@pytest.mark.parametrize("offset", [-300, -1, 0, 1, 300])
def test_a_signature_within_the_tolerance_is_fresh(offset: int) -> None:
    verify(signed(at=NOW + offset), BODY, [SECRET], NOW)


def test_a_stale_signature_tells_by_how_much() -> None:
    error = refusal(signed(at=NOW - 301))
    assert (str(error), error.skew) == ("stale signature", -301)


def test_a_signature_from_the_future_tells_by_how_much() -> None:
    error = refusal(signed(), now=NOW - 300.5)
    assert (str(error), error.skew) == ("signature from the future", 300.5)


def test_a_forger_learns_nothing_about_the_clock() -> None:
    error = refusal(signed(at=NOW - 9_999, secret=RETIRED))
    assert (str(error), error.skew) == ("wrong signature", None)


def test_the_tolerance_can_be_chosen() -> None:
    verify(signed(at=NOW - 3600), BODY, [SECRET], NOW, tolerance=3600)
    with pytest.raises(SignatureError, match="stale"):
        verify(signed(at=NOW - 61), BODY, [SECRET], NOW, tolerance=60)


@given(header=st.binary() | st.from_regex(rb"(t=\w{0,13}|v1=\w{0,65}|v2=.)( ?, ?(t=\w*|v1=\w*)){0,3}"))
def test_no_header_that_was_not_signed_is_taken_whatever_its_bytes(header: bytes) -> None:
    refusal(header)


def test_of_100_000_bad_deliveries_none_is_accepted_and_none_fails_otherwise() -> None:
    chance = random.Random(21)
    kinds = (forged, stale, future, replayed, rotated, mutated_body, mutated_header)
    verdicts: Counter[str] = Counter()
    for number in range(100_000):
        kind = kinds[number % len(kinds)]
        header, body = kind(chance)
        try:
            verify(header, body, [SECRET], NOW)
        except SignatureError as error:
            verdicts[f"{kind.__name__}: {error}"] += 1
        else:
            pytest.fail(f"accepted: {kind.__name__} {header!r} {body!r}")

    assert verdicts.total() == 100_000
    assert set(verdicts) == {
        "forged: wrong signature",
        "stale: stale signature",
        "future: signature from the future",
        "replayed: wrong signature",
        "rotated: wrong signature",
        "mutated_body: wrong signature",
        "mutated_header: wrong signature",
        "mutated_header: malformed signature",
        "mutated_header: no signature",
    }


Delivery = tuple[bytes, bytes]
VALID = signed()


def forged(chance: random.Random) -> Delivery:
    return b"t=%d,v1=%b" % (NOW, chance.randbytes(32).hex().encode()), BODY


def stale(chance: random.Random) -> Delivery:
    return signed(at=NOW - chance.randrange(301, NOW)), BODY


def future(chance: random.Random) -> Delivery:
    return signed(at=NOW + chance.randrange(301, 998_000_000_000)), BODY


def replayed(chance: random.Random) -> Delivery:
    """An old signature with a fresh time, or a fresh signature with another body."""
    old = signed(at=NOW - chance.randrange(1, 100_000))
    return chance.choice([(b"t=%d," % NOW + old.partition(b",")[2], BODY), (VALID, chance.randbytes(64))])


def rotated(chance: random.Random) -> Delivery:
    return signed(at=NOW + chance.randrange(-300, 301), secret=RETIRED), BODY


def mutated_body(chance: random.Random) -> Delivery:
    return VALID, mutate(BODY, chance, lambda changed: changed != BODY)


def mutated_header(chance: random.Random) -> Delivery:
    """Change anything but what the grammar treats as equal: the case of hex digits, spaces around the comma."""
    meaning = VALID.lower()
    return mutate(
        VALID, chance, lambda changed: changed.lower().replace(b" ,", b",").replace(b", ", b",") != meaning
    ), BODY


def mutate(value: bytes, chance: random.Random, is_bad: Callable[[bytes], bool]) -> bytes:
    while True:
        at, length = chance.randrange(len(value) + 1), chance.choice([0, 1, 1, 2, len(value)])
        changed = value[:at] + chance.randbytes(chance.choice([0, 1, 1, 3])) + value[at + length :]
        if is_bad(changed):
            return changed
