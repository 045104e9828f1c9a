"""An ending that is kept leads back to no frame: a circle would hold what a program answered until it is collected."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

from plum_core.execution.inside import answers, judge
from plum_core.execution.inside.endings import Ending

LIMITS = {"output_kib": 1}


class Held:
    """Something beside the ending in a frame of the judge's."""


def kept_after(make) -> bool:
    """Whether what ``make`` read is still there when its result is gone, with no collection."""
    gc.collect()
    gc.disable()
    try:
        return make()() is not None
    finally:
        gc.enable()


def judged(read) -> weakref.ref[Held]:
    """As the judge does: an ending and all else are locals of one frame."""
    held = Held()
    ending = read(b"x" * 5000)
    assert isinstance(ending, Ending)
    return weakref.ref(held)


def test_answers_go_with_the_frame_that_read_them():
    assert not kept_after(lambda: judged(lambda written: answers.read(written, "n", 1, LIMITS).ending))


def test_the_watch_sees_a_circle():
    def careless(written):
        try:
            raise Ending("output", "too long")
        except Ending as ending:
            return ending

    assert kept_after(lambda: judged(careless))


def test_a_childs_ending_leads_to_no_frame():
    reaped = SimpleNamespace(peak_kib=0)
    child = SimpleNamespace(finish=lambda closed: reaped, used_s=0.0, spent_s=0.0, is_rewritten=False)

    def converse(_):
        raise Ending("timeout", "asleep")

    ending = judge._run_child(child, converse, {}, judge.Usage())
    assert ending.args == ("timeout", "asleep") and ending.__traceback__ is None
