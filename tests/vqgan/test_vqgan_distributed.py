"""Two processes that `torchrun` starts train the VQGAN that one would train."""

import os
import subprocess
import sys

import pytest

from minidalle.training import load_recipe, log
from minidalle.vqgan.export import load_exported
from minidalle.vqgan.train import train

RECIPE = """
kind = "vqgan"
name = "tiny"
seed = 3

[model]
ch = 8
ch_mult = [1, 1, 1, 1]
num_res_blocks = 1
attn_resolutions = []
resolution = 64
z_channels = 8
n_embed = 24
embed_dim = 4
norm_groups = 4
quantizer = "{quantizer}"

[train]
steps = {steps}
stop_at = {stop_at}
batch_size = 4
learning_rate = 3e-3
warmup_steps = 4
codebook_start = 2
revive_after = 2
disc_weight = 0.1
disc_start = 4
disc_channels = 4
disc_layers = 2
bfloat16 = false
save_every = 4
log_every = 1

[output]
path = "{output}"
"""


def write_recipe(folder, quantizer="ema", steps=10, stop_at=0):
    path = folder / f"vqgan-{stop_at}.toml"
    path.write_text(
        RECIPE.format(quantizer=quantizer, steps=steps, stop_at=stop_at, output=folder / "out"), encoding="utf-8"
    )
    return path


def torchrun(recipe, run_dir):
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "minidalle.cli", "train", str(recipe), "--run-dir", str(run_dir)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


@pytest.mark.parametrize("quantizer", ["ema", "nearest"])
def test_two_processes_log_the_losses_of_one_and_one_goes_on_from_them(tmp_path, quantizer):
    child = torchrun(write_recipe(tmp_path, quantizer, stop_at=8), tmp_path / "two")
    said, wrong = child.communicate(timeout=600)
    assert child.returncode == 0, wrong[-3000:]
    assert said.count("trained tiny/vqgan") == 1
    together = log.read(tmp_path / "two" / "log.jsonl")
    assert [record["step"] for record in together] == list(range(8))
    load_exported(tmp_path / "out")

    train(load_recipe(write_recipe(tmp_path, quantizer)), run_dir=tmp_path / "two", progress=False)
    train(load_recipe(write_recipe(tmp_path, quantizer)), run_dir=tmp_path / "one", progress=False)
    for name in ("one", "two"):
        assert len(log.read(tmp_path / name / "log.jsonl")) == 10
    pairs = zip(log.read(tmp_path / "one" / "log.jsonl"), log.read(tmp_path / "two" / "log.jsonl"), strict=True)
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert theirs[name] == pytest.approx(value, rel=2e-3), (name, ours["step"])
