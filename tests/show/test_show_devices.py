import jax.numpy as jnp
import numpy as np
import pytest

from minidalle import show
from minidalle.show.devices import device_colours


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_a_matrix_on_one_device_is_one_block_with_its_number():
    figure = show.sharded({"x": jnp.zeros((2, 3)), "y": jnp.zeros((4, 1))})
    assert texts(figure) == ["0", "0"]
    assert [axis.get_title(loc="center") for axis in figure.axes] == ["x\n2 × 3", "y\n4 × 1"]


def test_rectangles_have_one_scale_unless_each_is_to_fill_its_room():
    arrays = {"large": jnp.zeros((8, 8)), "small": jnp.zeros((2, 2))}
    for to_scale, expected in ((True, [1, 0.25]), (False, [1, 1])):
        figure = show.sharded(arrays, to_scale=to_scale)
        assert [axis.patches[-1].get_height() for axis in figure.axes] == expected


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match="got no arrays"):
        show.sharded({})
    with pytest.raises(ValueError, match="owners draws matrices"):
        show.sharded({"x": jnp.zeros((2, 2, 2))})


def test_eight_devices_have_eight_colours():
    assert len(np.unique(device_colours(np.arange(8)).round(3), axis=0)) == 8
