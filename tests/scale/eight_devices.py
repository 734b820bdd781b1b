"""What `test_mesh.py` looks at, computed in a process with 8 simulated devices: `python eight_devices.py OUT.npz`."""

import sys
import tempfile

import jax
import numpy as np
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig, objective, sample
from minidalle.clip import CLIP, CLIPConfig
from minidalle.clip.train import loss_fn as clip_loss
from minidalle.scale.hlo import Program
from minidalle.scale.mesh import bytes_per_device, on_mesh, owners
from minidalle.training import fit, log, make_optimizer
from minidalle.training.step import Step

STEPS, ROWS = 3, 8
MESHES = {
    "one": None,
    "data": {"data": 2},
    "fsdp": {"fsdp": 4},
    "model": {"model": 2},
    "all": {"data": 2, "fsdp": 2, "model": 2},
}
BART = DalleBartConfig(
    encoder_vocab_size=40, image_vocab_size=31, image_length=9, max_text_length=8, d_model=16, encoder_layers=2,
    decoder_layers=2, encoder_ffn_dim=24, decoder_ffn_dim=24, encoder_attention_heads=4, decoder_attention_heads=4,
    dropout=0.1, init_std=0.2, gradient_checkpointing=False,
)  # fmt: skip


def make_bart():
    return DalleBart(BART, rngs=nnx.Rngs(0))


def make_clip():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**sizes, "vocab_size": 40, "max_position_embeddings": 8, "eos_token_id": 2, "pooling": "eos"}
    vision = {**sizes, "image_size": 8, "patch_size": 4}
    return CLIP(
        CLIPConfig.from_dict({"projection_dim": 16, "text_config": text, "vision_config": vision}), rngs=nnx.Rngs(0)
    )


def bart_loss(model, batch, key):
    return objective.loss(model, batch["text_ids"], batch["text_mask"], batch["codes"], key=key), {}


def batches(step):
    random = np.random.default_rng(step)
    text_ids = random.integers(3, 40, (ROWS, 8), dtype=np.int32)
    text_ids[:, -1] = 2
    return {
        "text_ids": text_ids,
        "text_mask": np.ones((ROWS, 8), np.int32),
        "codes": random.integers(31, size=(ROWS, 9), dtype=np.int32),
        "images": random.integers(256, size=(ROWS, 8, 8, 3), dtype=np.uint8),
    }


KINDS = {"bart": (make_bart, bart_loss), "clip": (make_clip, clip_loss)}


def on(mesh):
    """A placement on the first devices, as many as the mesh has; None for none."""
    return mesh and on_mesh(**mesh, devices=jax.devices()[: int(np.prod(list(mesh.values())))])


def losses(kind, mesh, folder=None, steps=STEPS):
    make, loss = KINDS[kind]
    folder = folder or tempfile.mkdtemp()
    fit(
        loss, make(), make_optimizer("adamw", 0.02, STEPS), batches, steps=steps,
        run_dir=folder, log_every=1, ema_decay=0.9, placement=on(mesh), progress=False,
    )  # fmt: skip
    return [record["loss"] for record in log.read(f"{folder}/log.jsonl")]


def draw(mesh, **settings):
    model = make_bart()
    if mesh:
        on(mesh).place(model)
    given = batches(0)
    blank = np.array([[0, 2] + [1] * 6], np.int32), np.array([[1, 1] + [0] * 6], np.int32)
    codes = sample(
        model, given["text_ids"], given["text_mask"], *blank, key=jax.random.key(1), guidance=2.0, **settings
    )
    return np.asarray(codes), len({str(shard.index) for shard in codes.addressable_shards})


def sent(placement):
    """The kinds of communication in the encoder."""
    graph, state = nnx.split(placement.place(make_bart()))
    encode = jax.jit(lambda state, ids, mask: nnx.merge(graph, state).encode(ids, mask))
    batch = placement.put_rows(batches(0))
    with jax.set_mesh(placement.mesh):
        text = encode.lower(state, batch["text_ids"], batch["text_mask"]).compile().as_text()
    return [collective.kind for collective in Program(text).collectives()]


def main(out):
    found = {}
    for name in ("one", "all"):
        found[f"bart {name}"] = losses("bart", MESHES[name])
        found[f"clip {name}"] = losses("clip", MESHES[name])
    with tempfile.TemporaryDirectory() as folder:
        losses("bart", MESHES["data"], folder, steps=1)
        found["bart data, then fsdp"] = losses("bart", MESHES["fsdp"], folder)
    for name in ("one", "model", "all"):
        found[f"codes {name}"], found[f"shares {name}"] = draw(MESHES[name])
    for name in ("one", "all"):
        found[f"codes in 8 bits {name}"], _ = draw(MESHES[name], int8=True)

    placement = on(MESHES["all"])
    step = Step(bart_loss, nnx.eval_shape(make_bart), make_optimizer("adamw", 0.1, 9), batches(0), placement=placement)
    found["lowered"] = step.lower().as_text()
    found["bytes"] = [
        bytes_per_device(step.shapes),
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(step.shapes)),
    ]
    found["sent when fully sharded"] = sent(on({"fsdp": 8}))
    built = placement.build(make_bart)
    found["built"] = max(
        float(abs(np.asarray(one) - np.asarray(other)).max())
        for one, other in zip(jax.tree.leaves(nnx.state(make_bart())), jax.tree.leaves(nnx.state(built)), strict=True)
    )
    found["owners"] = owners(built.decoder.layers.feed_forward.gate.kernel[...][0])
    try:
        placement.put_rows({"codes": np.zeros((6, 9), np.int32)})
    except ValueError as error:
        found["refused"] = str(error)
    np.savez(out, **found)


if __name__ == "__main__":
    main(sys.argv[1])
