"""Eight devices draw what one draws."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures"
DRAW = """
import sys, jax, numpy as np
from minidalle.bart import sample
from minidalle.pipeline import Pipeline
pipe = Pipeline.load(sys.argv[1], vqgan=sys.argv[2], clip=None)
assert jax.device_count() == pipe.devices == int(sys.argv[3])
found = pipe.generate(["a cat", "the sea", ""], n=7, seed=3)  # 21 rows, which 8 devices cannot share evenly
drawn = sample(pipe.bart, *pipe.read(["a cat"] * 16), pipe.blank_ids, pipe.blank_mask, key=jax.random.key(0), guidance=3)
shards = [shard.data.shape[0] for shard in drawn.addressable_shards]
*_, last = pipe.stream("a cat", seed=3)
np.savez(sys.argv[4], codes=np.stack([x.codes for x in found]), images=np.stack([x.images for x in found]),
         shards=shards, streamed=last.codes)
"""


def test_eight_devices_draw_what_one_draws(tmp_path):
    results = []
    for devices in (1, 8):
        out = tmp_path / f"{devices}.npz"
        parts = [str(FIXTURES / "dallebart_mini_scan"), str(FIXTURES / "vqgan_jax_basic"), str(devices), str(out)]
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run([sys.executable, "-c", DRAW, *parts], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        results.append(np.load(out))
    one, eight = results
    assert one["shards"].tolist() == [16] and eight["shards"].tolist() == [2] * 8
    for name in ("codes", "streamed"):
        np.testing.assert_array_equal(one[name], eight[name])
    assert one["images"].shape == (3, 7, 8, 8, 3)
    assert np.abs(one["images"].astype(int) - eight["images"]).max() <= 1  # rounding at a boundary of two bytes
