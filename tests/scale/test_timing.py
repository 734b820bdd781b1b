"""The race: what is counted as the first call, how often each is called, who waits for whom. No test compares speeds."""

import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from minidalle.scale import timing
from minidalle.scale.timing import Timing, race


class Clock:
    """Stands in for the `time` module: it moves only when somebody works or sleeps."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def worker(self, name, *durations):
        """A call that takes `durations` in turn, and the last of them ever after."""
        left = list(durations)

        def work():
            self.order.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(timing, "time", found)
    return found


def test_the_first_call_is_counted_apart(clock):
    found = race({"compiles": clock.worker("compiles", 5.0, 0.5)}, repeats=3)["compiles"]
    assert found.first == 5.0
    assert found.calls == pytest.approx((0.5, 0.5, 0.5))


def test_the_rest_between_two_timings_is_not_counted(clock):
    found = race({"a": clock.worker("a", 1.0)}, repeats=2, rest=100.0)["a"]
    assert found.calls == pytest.approx((1.0, 1.0))


def test_contestants_take_turns_and_change_who_begins(clock):
    race({"a": clock.worker("a", 1.0), "b": clock.worker("b", 1.0)}, repeats=3, least=0.0)
    assert "".join(clock.order) == "ab" + "ab" + "ab" + "ba" + "ab"


def test_a_short_call_is_repeated_until_it_can_be_timed(clock):
    found = race({"short": clock.worker("short", 0.25), "long": clock.worker("long", 4.0)}, repeats=1, least=1.0)
    assert clock.order.count("short") == 2 + 4
    assert clock.order.count("long") == 2 + 1
    assert found["short"].calls == pytest.approx((0.25,))


def test_the_median_is_not_moved_by_one_slow_repeat():
    assert Timing(9.0, (1.0, 50.0, 2.0)).median == 2.0


def test_a_timing_reads_in_milliseconds_with_its_range_and_its_first_call():
    assert str(Timing(1.5, (0.001, 0.05, 0.00213))) == "  2.1 ms  (1 to 50), the first call 1,500 ms"
    assert str(Timing(0.2, (2.5, 0.26, 0.3))).split() == "300 ms (260 to 2,500), the first call 200 ms".split()


def test_results_of_jax_are_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(timing, "jax", SimpleNamespace(block_until_ready=waited.append))
    race({"a": lambda: "result"}, repeats=2, rest=0)
    assert set(waited) == {"result"} and len(waited) == 4


def test_real_calls_are_timed_with_the_real_clock():
    double = jax.jit(lambda x: 2 * x)
    found = race({"jax": lambda: double(jnp.ones(4)), "sleep": lambda: time.sleep(0.03)}, repeats=2, rest=0)
    assert min(found["sleep"].calls) >= 0.03 and found["jax"].first > 0


@pytest.mark.parametrize(("contestants", "repeats"), [({}, 3), ({"a": int}, 0)])
def test_a_race_without_contestants_or_repeats_is_refused(contestants, repeats):
    with pytest.raises(ValueError, match="at least one of each"):
        race(contestants, repeats=repeats)
