"""A meeting's webhooks fit each other: one session, the counts of who is there, and times in order."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whereby_trigger import Trigger, is_human
from whereby_trigger.testing import Meeting
from whereby_trigger.webhook import BOT_ROLES, WEBHOOK_TYPES, RoomClientJoined, RoomClientLeft, decode

ROLES = ("host", "visitor", "granted_visitor", "assistant", "recorder")
BEGIN = datetime(2026, 11, 28, 22, 14, tzinfo=UTC)


def test_the_counts_are_of_those_who_are_there_after_each_event() -> None:
    meeting = Meeting()
    joined = [meeting.join("host"), meeting.join(), meeting.join("assistant")]
    assert [(one.data.num_clients, one.data.humans) for one in joined] == [(1, 1), (2, 2), (3, 2)]
    assert meeting.leave("host").data.num_clients_by_role_name == {"visitor": 1, "assistant": 1}
    assert meeting.leave().data.role_name == "assistant"
    assert meeting.leave().data.num_clients == 0


@given(st.lists(st.sampled_from((*ROLES, "leave")), max_size=30))
def test_whatever_happens_the_newest_count_is_right(happenings: list[str]) -> None:
    meeting, present = Meeting(begin=BEGIN), list[str]()
    for second, what in enumerate(happenings):
        if what != "leave":
            present.append(what)
            counted: RoomClientJoined | RoomClientLeft = meeting.join(what, at=second)
        elif present:
            counted = meeting.leave(at=second)
            present.pop()
        else:
            continue
        assert counted.data.num_clients == len(present)
        assert counted.data.humans == len([role for role in present if role not in BOT_ROLES])
        assert counted.created_at == BEGIN + timedelta(seconds=second)


def test_one_person_has_one_id_in_every_webhook_and_others_have_others() -> None:
    meeting = Meeting()
    joined, other = meeting.join("host", name="Kim"), meeting.join("host", name="Noor")
    left = meeting.leave("Kim")
    assert left.data.participant_id == joined.data.participant_id != other.data.participant_id
    assert left.data.display_name == "Kim"


def test_a_meeting_can_have_every_type_of_webhook_of_one_session_and_each_its_own_id() -> None:
    meeting = Meeting("/visit-9", subdomain="clinic")
    built: list[Any] = [meeting.join("host"), meeting.start(), meeting.knock("Sam"), meeting.cancel_knock("Sam")]
    built += [meeting.request_assistant(), meeting.start_transcription(), meeting.finish_transcription()]
    built += [meeting.fail_transcription(), meeting.finish_recording(), meeting.leave(), meeting.end()]
    assert {one.type for one in built} == set(WEBHOOK_TYPES)
    assert len({one.id for one in built}) == len(built)
    assert {one.data.room_session_id for one in built if hasattr(one.data, "room_session_id")} == {meeting.session_id}
    assert {one.data.room_name.lstrip("/") for one in built} == {"visit-9"}
    assert {one.data.subdomain for one in built if hasattr(one.data, "subdomain")} == {"clinic"}
    assert all(decode(one.raw) == one for one in built)
    assert len({one.data.transcription_id for one in built if one.type.startswith("transcription.")}) == 1


def test_a_meeting_may_lack_the_id_of_its_session_as_some_of_wherebys_do() -> None:
    meeting = Meeting(session_id=None)
    assert (meeting.join().data.room_session_id, meeting.end().data.room_session_id) == (None, None)
    assert Meeting(session_id="s").start().data.room_session_id == "s"


def test_more_fields_are_given_by_their_wire_names() -> None:
    joined = Meeting().join(externalId="patient-7", isDialIn=True)
    assert (joined.data.external_id, joined.data.is_dial_in) == ("patient-7", True)


def test_a_meeting_takes_fields_as_webhook_does() -> None:
    joined = Meeting().join(external_id="patient-7", data={"isDialIn": True, "aFieldOfTomorrow": 1})
    assert (joined.data.external_id, joined.data.is_dial_in) == ("patient-7", True)
    assert json.loads(joined.raw)["data"]["aFieldOfTomorrow"] == 1
    knocked = Meeting().knock(external_id="patient-7", data={"metadata": "m"})
    assert (knocked.data.external_id, knocked.data.metadata) == ("patient-7", "m")


def test_a_misspelt_field_of_a_meeting_is_an_error() -> None:
    for misspelt in (Meeting().join, Meeting().knock):
        with pytest.raises(TypeError, match="Did you mean 'external"):
            misspelt(externalid="patient-7")


@pytest.mark.parametrize(("who", "message"), [("Kim", "nobody called 'Kim'"), (None, "there is nobody")])
def test_nobody_leaves_who_is_not_there(who: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Meeting().leave(who)


def test_a_transcription_that_was_not_started_does_not_finish() -> None:
    with pytest.raises(ValueError, match="start_transcription"):
        Meeting().finish_transcription()


@pytest.mark.anyio
async def test_a_meeting_of_a_test_delivers_each_webhook_and_returns_its_decision() -> None:
    trigger = Trigger()

    @trigger.when("room.client.joined")
    def two_people(webhook: RoomClientJoined) -> bool:
        return is_human(webhook) and (webhook.data.humans or 0) >= 2

    async with trigger.testing() as t:
        meeting = t.meeting("/visit-1")
        assert [(await meeting.join("host")).state, (await meeting.join()).state] == ["skipped", "fired"]
        assert (await meeting.join("assistant")).state == "skipped"
        assert [(await step()).state for step in (meeting.start, meeting.knock, meeting.cancel_knock)] == [
            "unhandled"
        ] * 3
        for step in (meeting.request_assistant, meeting.start_transcription, meeting.finish_transcription):
            await step()
        for last in (meeting.fail_transcription, meeting.finish_recording, meeting.leave, meeting.end):
            await last()
        records = await t.stored()
        assert {record.type for record in records} == set(WEBHOOK_TYPES)
        assert meeting.present == ()
        assert {record.room for record in records if record.room} == {"acme.whereby.com/visit-1"}
