"""The grammar of the `Whereby-Signature` header, one case per sentence of it."""

import pytest

from whereby_trigger.errors import SignatureError
from whereby_trigger.webhook import sign, verify

SECRET = "correct horse"
BODY = '{"name":"Zoë"}'.encode()
NOW = 1_700_000_000
T = f"t={NOW}"
V1 = sign(SECRET, BODY, NOW).partition(",")[2]
WRONG = "v1=" + "0" * 64


def check(header: str | bytes | None) -> None:
    verify(header.encode("latin-1") if isinstance(header, str) else header, BODY, [SECRET], NOW)


ACCEPTED = {
    "t first": f"{T},{V1}",
    "v1 first": f"{V1},{T}",
    "a space after the comma": f"{T}, {V1}",
    "spaces around the comma": f"{T}  ,  {V1}",
    "several v1, the first matches": f"{T},{V1},{WRONG}",
    "several v1, the last matches": f"{T},{WRONG},{V1}",
    "five v1": f"{T},{WRONG},{WRONG},{WRONG},{WRONG},{V1}",
    "an unknown scheme v0": f"v0=abc,{T},{V1}",
    "an unknown scheme v2": f"{T},{V1},v2=a+b/c==",
    "an unknown scheme twice": f"{T},v2=a,{V1},v2=b",
    "an unknown scheme that begins with t": f"ts=1,{T},{V1}",
    "an unknown scheme that begins with v1": f"v10=1,{T},{V1}",
    "upper-case hex": f"{T},v1={V1[3:].upper()}",
    "exactly 1 KiB": f"{T},{V1},v2=".ljust(1024, "x"),
}

MALFORMED = {
    "two t": f"{T},{T},{V1}",
    "two t that differ": f"{T},t=1,{V1}",
    "no t": V1,
    "no v1": T,
    "only an unknown scheme for a signature": f"{T},v0={V1[3:]}",
    "an empty t": f"t=,{V1}",
    "an empty v1": f"{T},v1=",
    "an empty v1 beside a right one": f"{T},{V1},v1=",
    "an empty unknown scheme": f"{T},{V1},v2=",
    "an empty item": f"{T},,{V1}",
    "a comma at the start": f",{T},{V1}",
    "a comma at the end": f"{T},{V1},",
    "nothing but a comma": ",",
    "an item without a value": f"{T},{V1},v2",
    "hex of 63 digits": f"{T},{V1[:-1]}",
    "hex of 65 digits": f"{T},{V1}0",
    "hex of 62 digits beside a right one": f"{T},{V1},{V1[:-2]}",
    "64 characters that are not hex": f"{T},v1={'g' * 64}",
    "a non-ASCII letter": f"{T},{V1},v2=\xe9",
    "non-ASCII hex": f"{T},v1={'٠' * 64}".encode(),
    "t in Arabic digits": f"t=١٧٠٠٠٠٠٠٠٠,{V1}".encode(),
    "t with underscores": f"t=1_700_000_000,{V1}",
    "t with a plus": f"t=+{NOW},{V1}",
    "t with a minus": f"t=-{NOW},{V1}",
    "t with a space before it": f"t= {NOW},{V1}",
    "t with a fraction": f"t={NOW}.0,{V1}",
    "t of 13 digits": f"t=0001700000000,{V1}",
    "t that is not a number": f"t=now,{V1}",
    "a space before the equals sign": f"t ={NOW},{V1}",
    "a space inside v1": f"{T},v1=ab {V1[6:]}",
    "a tab beside the comma": f"{T},\t{V1}",
    "a line break": f"{T},\r\n {V1}",
    "a line break at the end": f"{T},{V1}\n",
    "a space at the start": f" {T},{V1}",
    "a space at the end": f"{T},{V1} ",
    "a semicolon for the comma": f"{T};{V1}",
    "an upper-case scheme": f"T={NOW},{V1}",
    "six v1": f"{T},{V1}" + f",{WRONG}" * 5,
    "over 1 KiB": f"{T},{V1},v2=".ljust(1025, "x"),
    "two headers joined by a comma": f"{T},{V1},{T},{V1}",
    "a NUL": f"{T},{V1}\0",
}


@pytest.mark.parametrize("header", ACCEPTED.values(), ids=ACCEPTED)
def test_the_grammar_takes(header: str) -> None:
    check(header)


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
def test_the_grammar_refuses(header: str | bytes) -> None:
    with pytest.raises(SignatureError, match=r"^malformed signature$") as caught:
        check(header)
    assert caught.value.skew is None


@pytest.mark.parametrize("header", [None, b""])
def test_a_delivery_without_the_header_is_told_apart(header: bytes | None) -> None:
    with pytest.raises(SignatureError, match=r"^no signature$"):
        check(header)


@pytest.mark.parametrize("t", ["0" * 12, "9" * 12, "01700000000"])
def test_t_is_signed_as_it_was_written(t: str) -> None:
    with pytest.raises(SignatureError, match=r"^wrong signature$"):
        check(f"t={t},{V1}")
