"""What a listener records is what is read back."""

import time
from pathlib import Path

from bench.programs import Notebook, Notes, read_notes


def test_calls_are_counted(tmp_path: Path) -> None:
    notebook = Notebook(tmp_path / "notes", times=False)
    for id in ("a", "b", "a"):
        notebook.note(id)
    notebook.close()
    assert read_notes(tmp_path / "notes") == Notes(3)


def test_the_time_of_each_call_is_kept(tmp_path: Path) -> None:
    notebook, before = Notebook(tmp_path / "notes", times=True), time.monotonic_ns()
    for id in ("a", "/room-1"):
        notebook.note(id)
    notebook.close()
    notes = read_notes(tmp_path / "notes")
    assert notes.heard == 2
    assert before <= notes.times["a"] <= notes.times["/room-1"] <= time.monotonic_ns()
