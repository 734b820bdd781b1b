"""Side-by-side runs against peers, one file for each question; run from the root as `python -m benchmarks.NAME`."""
