"""What is sent: webhooks as Whereby sends them, of one size, none of them twice."""

import time
from itertools import islice
from pathlib import Path

from bench.bodies import ROOMS, SIZE, bodies, request, write_requests
from bench.programs import SECRET
from whereby_trigger import RoomClientJoined, is_human
from whereby_trigger.receive.intake import Accepted, Rules, intake
from whereby_trigger.webhook import decode

SOME = 2500


def test_each_body_is_a_human_joining_one_of_the_rooms_and_of_one_size() -> None:
    some = list(islice(bodies(), SOME))
    webhooks = [decode(one.body) for one in some]
    assert {len(one.body) for one in some} == {SIZE}
    assert all(isinstance(webhook, RoomClientJoined) and is_human(webhook) for webhook in webhooks)
    assert [webhook.id for webhook in webhooks] == [one.id for one in some]
    assert len({webhook.data.room_name for webhook in webhooks if isinstance(webhook, RoomClientJoined)}) == ROOMS


def test_no_id_comes_twice_in_one_run_or_in_two() -> None:
    ids = [one.id for source in (bodies(), bodies()) for one in islice(source, SOME)]
    assert len(set(ids)) == 2 * SOME


def test_a_request_is_let_in(tmp_path: Path) -> None:
    now = time.time()
    requests = write_requests(tmp_path / "requests", bodies(), 3, now)
    for one in requests.read():
        head, _, body = one.partition(b"\r\n\r\n")
        pairs = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
        verdict = intake([(name.lower(), value) for name, value in pairs], body, now, Rules((SECRET,)))
        assert isinstance(verdict, Accepted)


def test_a_file_of_requests_holds_as_many_as_were_asked_for_all_of_one_size(tmp_path: Path) -> None:
    requests = write_requests(tmp_path / "requests", bodies(), SOME, time.time())
    assert requests.path.stat().st_size == requests.size * requests.count == requests.size * SOME
    assert len(request(next(bodies()).body, time.time())) == requests.size
