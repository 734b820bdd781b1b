"""How much memory a process takes at most while it loads a checkpoint of about 200 MB."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx, serialization, traverse_util
from safetensors.numpy import save_file

from minidalle.bart import DalleBart, DalleBartConfig
from minidalle.hub.dallebart import native_name
from minidalle.hub.stored import stored_msgpack
from minidalle.training.tree import flatten_names

CONFIG = {
    "d_model": 768, "encoder_layers": 3, "decoder_layers": 3, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048,
    "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_vocab_size": 8000, "image_vocab_size": 2048,
}  # fmt: skip
FIXTURES = Path(__file__).parents[1] / "fixtures"
# Peak memory is reset before the load: the interpreter and its libraries take up to 400 MB of their own.
MEASURE = """
import sys, jax
from minidalle.bart import DalleBart
from minidalle.hub.dallebart import load_dallebart
from minidalle.hub.native import load_bart
jax.block_until_ready(jax.numpy.ones(3) + 1)
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
types = {"dtype": sys.argv[3], "param_dtype": sys.argv[3]}
model = {"msgpack": load_dallebart, "safetensors": load_bart}[sys.argv[1]](sys.argv[2], **types)
jax.block_until_ready(model.lm_head.kernel[...])
print(status("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The same random weights in both formats, with the original's names and with ours, and the bytes of a file."""
    folder = tmp_path_factory.mktemp("memory")
    config = DalleBartConfig(**CONFIG)
    shapes, _ = flatten_names(nnx.state(nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0)))))
    arrays = {name: np.full(leaf.shape, 0.01, np.float32) for name, leaf in shapes.items()}
    names = stored_msgpack(FIXTURES / "dallebart_mini_scan/flax_model.msgpack")
    original = {name: arrays[native_name(config, name)] for name in names}
    assert len(original) == len(arrays)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    tree = traverse_util.unflatten_dict(original, sep="/")
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    ours = folder / "bart"
    ours.mkdir()
    (ours / "config.json").write_text(json.dumps({"kind": "bart", **config.to_dict()}))
    save_file(arrays, ours / "model.safetensors")
    return folder, (ours / "model.safetensors").stat().st_size


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux counts it")
@pytest.mark.parametrize(("form", "dtype", "limit"), [("msgpack", "float32", 1.6), ("safetensors", "float32", 1.6)])
def test_weights_are_in_memory_once(checkpoint, form, dtype, limit):
    """A second copy of all weights would make 2; seen are 1.25 to 1.35, since the largest array is on its way for a moment."""
    folder, size = checkpoint
    assert 180e6 < size < 300e6
    command = [sys.executable, "-c", MEASURE, form, str(folder), dtype]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(f"{form} as {dtype}: {int(done.stdout) / size:.2f} times the file")
    assert int(done.stdout) < limit * size
