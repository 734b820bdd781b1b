"""A recipe's VQGAN trains on WebDataset shards as on the folder they were made of."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from minidalle.training import log
from minidalle.vqgan.train import train

MODEL = {
    "ch": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (), "resolution": 16, "z_channels": 8,
    "n_embed": 16, "embed_dim": 4, "norm_groups": 4,
}  # fmt: skip


def recipe(source, output, stop_at=0):
    settings = {"steps": 6, "stop_at": stop_at, "batch_size": 4, "log_every": 1, "bfloat16": False}
    data, output = {"source": str(source)}, {"path": str(output)}
    return {"kind": "vqgan", "name": "t", "seed": 1, "data": data, "model": MODEL, "train": settings, "output": output}


@pytest.fixture
def sources(tmp_path):
    """Ten pictures with captions: in a folder, and in two shards."""
    random = np.random.default_rng(0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as tar:
            for number in range(5 * shard, 5 * shard + 5):
                picture = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(picture, "png")
                for suffix, content in (("png", picture.getvalue()), ("txt", f"picture {number}".encode())):
                    (tmp_path / "folder" / f"{number}.{suffix}").write_bytes(content)
                    header = tarfile.TarInfo(f"{number}.{suffix}")
                    header.size = len(content)
                    tar.addfile(header, io.BytesIO(content))
    return tmp_path


def test_shards_and_folder_give_the_same_losses_also_after_a_stop(sources):
    out = sources / "out"
    train(recipe(sources / "folder", out), run_dir=sources / "a", progress=False)
    train(recipe(sources / "shards", out, stop_at=3), run_dir=sources / "b", progress=False)
    assert len(log.read(sources / "b" / "log.jsonl")) == 3
    train(recipe(sources / "shards", out), run_dir=sources / "b", progress=False)
    losses = [[record["loss"] for record in log.read(sources / run / "log.jsonl")] for run in "ab"]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        train(recipe(tmp_path / "nothing-here", tmp_path / "out"), run_dir=tmp_path / "run", progress=False)
