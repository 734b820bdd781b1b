"""Slices by their names, and the sum of their chips."""

import pytest

from minidalle.scale import slices


@pytest.mark.parametrize(
    ("name", "chips", "devices"),
    [
        ("v3-8", 4, 8),  # two cores a chip, each a device
        ("v4-32", 16, 16),  # two cores a chip, one device
        ("v5p-8", 4, 4),
        ("v5litepod-16", 16, 16),  # counted in chips
        ("tpu-v6e-8", 8, 8),
    ],
)
def test_google_counts_cores_or_chips(name, chips, devices):
    found = slices.find_slice(name)
    assert (found.chips, found.devices) == (chips, devices)


def test_every_name_leads_to_as_many_cores_or_chips_as_it_says():
    for name in slices.slice_names():
        found = slices.find_slice(name)
        cores_a_chip = 1 if found.generation in ("v5e", "v6e") else 2
        assert found.chips * cores_a_chip == int(name.rpartition("-")[2])


@pytest.mark.parametrize("name", ["v7x-8", "v3-9", "h100", "v3"])
def test_an_unknown_slice_lists_the_known_ones(name):
    with pytest.raises(ValueError, match="there are v2-8, .*v3-8, .*v6e-256"):
        slices.find_slice(name)


def test_a_v3_8_has_128_gib_and_cost_eight_dollars_an_hour():
    found = slices.find_slice("v3-8")
    assert found.devices * found.device.memory == 128 * 2**30
    assert found.device.half == 61.5e12
    assert found.dollars(1, spot=False) == pytest.approx(8.00)
    assert found.dollars(1) == pytest.approx(2.40)
