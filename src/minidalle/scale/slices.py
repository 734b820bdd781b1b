"""TPUs as they are rented: what a chip can do and costs, and the names of slices.

A *chip* has one or two cores. Before v4 each core is a device of its own to JAX, with its own half of the memory; from v4 on
the two cores of a chip are one device. A *slice* is so many chips side by side, connected to each other.
"""

import re
from dataclasses import dataclass

from .cost import Device


@dataclass(frozen=True)
class Chip(Device):
    """One TPU chip; memory, bandwidth and operations are those of the whole chip.

    Attributes:
        devices: as how many devices JAX sees the chip.
        interconnect: bytes a second out of the chip, over all its links to neighbours together, one direction.
        clock: cycles a second, in which the compiler estimates.
        on_demand, spot: US dollars an hour, the second for a machine that may be taken away at any time.
        layout: the `chip_config_name` by which the compiler knows it.
    """

    devices: int
    interconnect: float
    clock: float
    on_demand: float
    spot: float
    layout: str = "default"


def _chip(memory: float, bandwidth: float, half: float, **others) -> Chip:
    # XLA multiplies float32 in six passes of bfloat16 when asked for its highest precision (jax.lax.Precision).
    return Chip(memory, bandwidth, half, half / 6, **others)


# Memory, bandwidth, operations: Google's pages of each generation, cloud.google.com/tpu/docs/v3 and so on; v2's from Jouppi
# et al. 2020 (CACM 63/7), as from memory, 2026-11. Interconnect: v2 and v3 four links of 496 and 656 Gbit/s, v4 six of
# 400 Gbit/s (the same and Jouppi et al. 2023, from memory, 2026-11); later ones half of what Google's pages give for both
# directions, v5p the 4,800 Gbit/s of its page. Clock: v2, v3, v4 of Jouppi et al. 2021 (ISCA), from memory, 2026-11; v5e and
# v5p follow from their operations and their matrix units; v6e's assumes twice the two units of 256 × 256 that its page has.
# Prices, us-central1: v2 and v3 of 2022, SkyPilot's catalogue v1 (skypilot-org/skypilot-catalog, commit 17e771d9), slices of
# 8 cores; v5e, v5p and v6e its catalogue v8 (commit 006059e0, 2026); v4 of us-central2, from memory, 2026-11. Spot prices of
# the later ones change from month to month, and elsewhere were up to 2.5 times as high in that catalogue.
TPUS = {
    "v2": _chip(16 * 2**30, 700e9, 46e12, devices=2, interconnect=248e9, clock=700e6, on_demand=1.125, spot=0.3375),
    "v3": _chip(32 * 2**30, 900e9, 123e12, devices=2, interconnect=328e9, clock=940e6, on_demand=2.00, spot=0.60),
    "v4": _chip(
        32 * 2**30, 1200e9, 275e12, devices=1, interconnect=300e9, clock=1050e6, on_demand=3.22, spot=0.97,
        layout="megacore",
    ),
    "v5e": _chip(16e9, 819e9, 197e12, devices=1, interconnect=200e9, clock=1500e6, on_demand=1.20, spot=0.245),
    "v5p": _chip(95e9, 2765e9, 459e12, devices=1, interconnect=600e9, clock=1750e6, on_demand=4.20, spot=0.836),
    "v6e": _chip(32e9, 1638e9, 918e12, devices=1, interconnect=400e9, clock=1750e6, on_demand=2.70, spot=0.544),
}  # fmt: skip

# Google's names count cores up to v4 and for v5p, chips for v5e and v6e; of several shapes the one given by default.
SQUARES = {8: "2x2", 32: "4x4", 64: "4x8", 128: "8x8", 256: "8x16", 512: "16x16"}
CUBES = {8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8"}
FLATS = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
SHAPES = {"v2": SQUARES, "v3": SQUARES, "v4": CUBES, "v5e": FLATS, "v5p": CUBES, "v6e": FLATS}


@dataclass(frozen=True)
class Slice:
    """Chips that are rented together.

    Attributes:
        name: as "v3-8".
        generation: the key of `TPUS`.
        shape: chips along each direction, as "2x2".
    """

    name: str
    generation: str
    shape: str

    @property
    def chip(self) -> Chip:
        """What each chip can do."""
        return TPUS[self.generation]

    @property
    def chips(self) -> int:
        """How many there are."""
        count = 1
        for side in self.shape.split("x"):
            count *= int(side)
        return count

    @property
    def devices(self) -> int:
        """As how many devices JAX sees them."""
        return self.chips * self.chip.devices

    @property
    def device(self) -> Device:
        """What each of these devices can do."""
        chip, share = self.chip, self.chip.devices
        return Device(chip.memory / share, chip.bandwidth / share, chip.half / share, chip.single / share)

    def dollars(self, hours: float, *, spot: bool = True) -> float:
        """US dollars for so many hours, at the chip's price as of the date in this file."""
        return hours * self.chips * (self.chip.spot if spot else self.chip.on_demand)


def find_slice(name: str) -> Slice:
    """The slice of this name: "v3-8", "v4-32", "v5e-16" or "v5litepod-16", "v5p-8", "v6e-8".

    Raises:
        ValueError: there is none; the message lists what there is.
    """
    found = re.fullmatch(r"(?:tpu-)?(v\d\w*?)-(\d+)", name.lower())
    generation = {"v5litepod": "v5e"}.get(found[1], found[1]) if found else None
    shapes = SHAPES.get(generation, {})
    if not found or int(found[2]) not in shapes:
        raise ValueError(f"no TPU slice {name!r} is known here; there are {', '.join(slice_names())}")
    return Slice(f"{generation}-{int(found[2])}", generation, shapes[int(found[2])])


def slice_names() -> list[str]:
    """Every name that `find_slice` knows, without second names."""
    return [f"{generation}-{count}" for generation, shapes in SHAPES.items() for count in shapes]
