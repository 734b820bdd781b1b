"""Side-by-side runs against peers, one file for each question; run from the root as `python -m benchmarks.NAME`."""

from contextlib import suppress

with suppress(ImportError):  # a peer's environment has no minidalle, and no libtpu that would talk
    from minidalle.scale.quiet import quieten_libtpu

    quieten_libtpu()
