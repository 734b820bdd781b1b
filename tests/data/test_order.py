"""The order of rows: every one once an epoch, the same after a resume, however many processes share it."""

import numpy as np
import pytest

from minidalle.data.order import Order


def test_every_row_comes_once_an_epoch_each_epoch_in_an_order_of_its_own():
    rows = np.concatenate([Order(10, 4, (3,)).rows(step) for step in range(5)]).reshape(2, 10)
    assert [sorted(epoch) for epoch in rows.tolist()] == [list(range(10))] * 2
    assert rows[0].tolist() != rows[1].tolist()
    # the published definition of the order: NumPy's own
    np.testing.assert_array_equal(rows[1], np.random.default_rng([3, 1]).permutation(10))


@pytest.mark.parametrize("count", [3, 10, 64])
def test_a_batch_depends_on_seed_and_step_alone(count):
    forwards = [Order(count, 8, (5, 0)).rows(step) for step in range(20)]
    for step in (19, 0, 7, 8):  # as after a resume at any of these
        np.testing.assert_array_equal(Order(count, 8, (5, 0)).rows(step), forwards[step])
    assert any((Order(count, 8, (6, 0)).rows(step) != forwards[step]).any() for step in range(20))


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_parts_of_processes_are_the_batch_of_one(parts):
    order = Order(13, 8, (1,))
    for step in range(6):
        together = np.concatenate([order.rows(step, part, parts) for part in range(parts)])
        np.testing.assert_array_equal(together, order.rows(step))


def test_within_an_epoch_processes_have_no_row_in_common_and_leave_none_out():
    order = Order(32, 8, (2,))
    seen = [np.concatenate([order.rows(step, part, 4) for step in range(4)]).tolist() for part in range(4)]
    assert sorted(sum(seen, [])) == list(range(32))


def test_what_cannot_be_shared_or_put_in_order_is_refused():
    with pytest.raises(ValueError, match="batch_size is 8, which 3 processes cannot share alike"):
        Order(10, 8, (0,)).rows(0, 0, 3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Order(10, 0, (0,))
    with pytest.raises(ValueError, match="no rows"):
        Order(0, 1, (0,))
