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
ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"


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
    command = [sys.executable, "-m", "benchmarks.loading", form, str(folder), dtype]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    peak = json.loads(done.stdout)["peak_bytes"]
    print(f"{form} as {dtype}: {peak / size:.2f} times the file")
    assert peak < limit * size
