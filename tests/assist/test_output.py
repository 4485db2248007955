"""An assistant's output becomes lines that a log or a store can take."""

from hypothesis import given
from hypothesis import strategies as st

from whereby_trigger.assist.pipes import LONGEST, Lines, readable


def lines_of(*chunks: bytes) -> list[bytes]:
    lines = Lines()
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.end()


@given(st.lists(st.binary(max_size=40)))
def test_lines_are_the_same_however_the_stream_is_cut(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    assert lines_of(*chunks) == (expected if expected[-1] else expected[:-1])


@given(st.integers(LONGEST - 2, LONGEST + 2), st.integers(1, 3 * LONGEST))
def test_a_long_line_is_cut_at_the_same_place_however_the_stream_is_cut(length: int, size: int) -> None:
    stream = b"x" * length + b"\nend"
    long, end = lines_of(*(stream[at : at + size] for at in range(0, len(stream), size)))
    assert readable(long) == "x" * min(length, LONGEST) + "…" * (length > LONGEST)
    assert readable(end) == "end"


def test_a_line_without_an_end_is_never_held_whole() -> None:
    lines = Lines()
    for _ in range(100):
        assert lines.feed(b"x" * LONGEST) == []
    assert [len(line) for line in lines.end()] == [LONGEST + 1]


@given(st.binary())
def test_any_bytes_become_text_that_any_store_takes(line: bytes) -> None:
    text = readable(line)
    assert "\0" not in text
    assert text.encode().decode() == text


@given(st.text(st.characters(exclude_characters="\0\r", codec="utf-8"), max_size=100))
def test_utf_8_is_told_as_it_was_written(text: str) -> None:
    assert readable(text.encode()) == text
    assert readable(text.encode() + b"\r") == text
