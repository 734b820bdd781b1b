"""A run that is killed, stopped, spoiled or misled; and one that is left alone and learns."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minidalle.training import TrainingInterrupted, log
from minidalle.vqgan import VQGAN, VQGANConfig
from minidalle.vqgan.export import load_exported
from minidalle.vqgan.losses import PerceptualLoss, WordFeatures
from minidalle.vqgan.train import Run, VQGANTraining, train

STEPS = 24
MODEL = {
    "ch": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (), "resolution": 16, "z_channels": 8,
    "n_embed": 48, "embed_dim": 4, "norm_groups": 4, "dropout": 0.1, "quantizer": "ema",
}  # fmt: skip
TRAINING = {
    "steps": STEPS, "batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 4, "codebook_start": 3, "revive_after": 3,
    "disc_weight": 0.1, "disc_start": 6, "disc_channels": 4, "disc_layers": 1, "save_every": 5, "log_every": 1,
}  # fmt: skip
SCRIPT = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_vqgan_train as here

class Slow(here.Run):
    def train_step(self):
        logged = super().train_step()
        time.sleep(0.1)
        return logged

try:
    here.run(sys.argv[1], kind=Slow)
except here.TrainingInterrupted as stopped:
    print(stopped)
    sys.exit(130)
"""


def pictures(n=30):
    """Coloured halves: something to learn."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(256, (n, 3, 1, 2), generator=generator).float()
    return torch.nn.functional.interpolate(images, (16, 16)).to(torch.uint8)


def make(folder, *, kind=Run, model=None, perceptual=None, images=None, start=None, **changes):
    config = VQGANConfig(**MODEL | (model or {}))
    training = VQGANTraining(**TRAINING | changes)
    images = pictures() if images is None else images
    return kind(config, training, images, seed=7, folder=folder, perceptual=perceptual, start=start, device="cpu")


def run(folder, **changes):
    torch.set_num_threads(1)
    new = make(folder, **changes)
    new.resume()
    return new, new.fit(progress=False)


def start_process(folder):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)], stdout=subprocess.PIPE, env=environment, text=True
    )


def wait_for_step(folder, step, process):
    path = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while not path.exists() or len(path.read_text().splitlines()) <= step:
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline, "the run never came this far"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The log and the averaged weights of a run that was left alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finished, average = run(folder)
    assert finished.step == STEPS
    return (folder / "log.jsonl").read_text(), {name: value.clone() for name, value in average.state_dict().items()}


# --- the same run, whatever happens to it


def test_a_run_killed_and_resumed_is_the_one_that_was_left_alone(tmp_path, undisturbed):
    process = start_process(tmp_path)
    wait_for_step(tmp_path, 12, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 13, "los')  # what a kill in the middle of a line leaves
    resumed = make(tmp_path)
    assert 10 <= resumed.resume() < STEPS
    average = resumed.fit(progress=False)
    expected_log, expected_weights = undisturbed
    assert (tmp_path / "log.jsonl").read_text() == expected_log
    assert all(torch.equal(value, expected_weights[name]) for name, value in average.state_dict().items())


def test_a_run_that_is_asked_to_stop_saves_says_so_and_goes_on_from_there(tmp_path, undisturbed):
    process = start_process(tmp_path)
    wait_for_step(tmp_path, 6, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    stopped_at = len(log.read(tmp_path / "log.jsonl"))
    assert f"stopped after step {stopped_at} of {STEPS}" in said
    assert str(tmp_path) in said
    resumed = make(tmp_path)
    assert resumed.resume() == stopped_at
    resumed.fit(progress=False)
    assert (tmp_path / "log.jsonl").read_text() == undisturbed[0]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_run_stopped_early_and_resumed_twice_is_the_same(tmp_path, undisturbed):
    class Stopping(Run):
        def train_step(self):
            logged = super().train_step()
            if self.step in (2, 9):
                signal.raise_signal({2: signal.SIGTERM, 9: signal.SIGINT}[self.step])
            return logged

    for expected in (2, 9):
        stopping = make(tmp_path, kind=Stopping)
        stopping.resume()
        with pytest.raises(TrainingInterrupted, match=f"stopped after step {expected} of {STEPS}"):
            stopping.fit(progress=False)
    assert stopping.model.quantize.idle.any()  # so that forgetting them would show
    run(tmp_path)
    assert (tmp_path / "log.jsonl").read_text() == undisturbed[0]


def test_a_finished_run_is_not_trained_again(tmp_path):
    run(tmp_path, steps=4)
    before = (tmp_path / "state.pt").read_bytes(), (tmp_path / "log.jsonl").read_text()
    resumed, _ = run(tmp_path, steps=4)
    assert resumed.step == 4
    assert ((tmp_path / "state.pt").read_bytes(), (tmp_path / "log.jsonl").read_text()) == before


def test_every_picture_comes_once_an_epoch_in_an_order_of_its_own(tmp_path):
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 3, 16, 16).contiguous()
    new = make(tmp_path, images=images)
    drawn = [(batch[:, 0, 0, 0] * 255).round().int().tolist() for batch in map(new.batch, range(6))]
    first, second = sum(drawn[:3], []), sum(drawn[3:], [])
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert make(tmp_path, images=images).batch(4)[:, 0, 0, 0].mul(255).round().int().tolist() == drawn[4]


# --- learning


@pytest.mark.parametrize(
    "model",
    [
        {"quantizer": "nearest"},
        {"quantizer": "ema"},
        {"quantizer": "gumbel"},
        {"quantizer": "fsq", "fsq_levels": (8, 6), "embed_dim": 2},
    ],
    ids=lambda model: model["quantizer"],
)
def test_pictures_get_better_with_every_quantizer(tmp_path, model):
    run(tmp_path, model=model | {"dropout": 0.0}, disc_weight=0.0, steps=40, learning_rate=1e-2, batch_size=8)
    quality = [record["psnr"] for record in log.read(tmp_path / "log.jsonl")]
    assert sum(quality[-5:]) / 5 > quality[0] + 3


def test_the_discriminator_joins_at_its_step_and_learns(undisturbed):
    records = [json.loads(line) for line in undisturbed[0].splitlines()]
    assert [("discriminator" in record) for record in records] == [step >= 6 for step in range(STEPS)]
    assert all(record["adaptive_weight"] > 0 for record in records[6:])
    assert records[-1]["discriminator"] < records[6]["discriminator"]


def test_the_discriminators_rate_is_in_units_of_the_generators(tmp_path):
    moved = {}
    for disc_rate in (0.0, 1.0, 3.0):
        new = make(tmp_path / str(disc_rate), disc_start=0, disc_rate=disc_rate)
        before = new.discriminator.main[0].weight.detach().clone()
        new.train_step()
        moved[disc_rate] = (new.discriminator.main[0].weight - before).abs().max().item()
    assert moved[0.0] == 0 < moved[1.0]
    assert moved[3.0] == pytest.approx(3 * moved[1.0], rel=1e-3)


def test_the_adversarial_loss_can_be_left_unscaled(tmp_path):
    logged = {}
    for adaptive in (True, False):
        new = make(tmp_path / str(adaptive), disc_start=0, disc_adaptive=adaptive)
        logged[adaptive] = float(new.train_step()["adaptive_weight"])
    assert logged[False] == 1
    assert logged[True] not in (0, 1)


def test_a_run_that_starts_from_a_stored_network_keeps_the_codes_that_win_nothing(tmp_path):
    stored = VQGAN(VQGANConfig(**MODEL))  # running means are not stored, so these are those of a fresh network
    stored.quantize.embedding.weight += 100
    stored.quantize.embedding.weight[0] = 0
    new = make(tmp_path, start=stored, codebook_start=0)
    new.model.train()
    new.train_step()
    torch.testing.assert_close(new.model.quantize.codebook[1:], stored.quantize.codebook[1:], rtol=1e-3, atol=0)


def test_frozen_parts_stay_and_the_codes_with_them(tmp_path):
    _, trained = run(tmp_path / "first")
    parts = ("encoder", "quant_conv", "quantize", "decoder.mid", "decoder.up.1")
    _, average = run(tmp_path / "second", start=trained, codebook_start=0, frozen=parts)
    before, after = trained.state_dict(), average.state_dict()
    for name in before:
        if name not in ("quantize.cluster_size", "quantize.embed_avg"):
            assert torch.equal(before[name], after[name]) == name.startswith(parts), name
    assert torch.equal(average.encode(pictures() / 255), trained.encode(pictures() / 255))


def test_a_frozen_part_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'decodr', to which no weight belongs; expected encoder, decoder"):
        make(tmp_path, frozen=("decodr",))


FIRST_TO_LEARN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
import test_vqgan_train as here

frozen = ("encoder", "quant_conv", "quantize", "post_quant_conv", "decoder.conv_in")
ours = here.make(sys.argv[1], frozen=frozen, model={{"dropout": 0.0}}).model
plain = here.VQGAN(ours.config)
plain.load_state_dict(ours.state_dict())
images = torch.rand(2, 3, 16, 16)
for model, given in ((ours, images.to(memory_format=torch.channels_last)), (plain, images)):
    model.decoder(model.post_quant_conv(model.features(given))).square().mean().backward()
for name, weight in ours.named_parameters():
    if not name.startswith(frozen):
        torch.testing.assert_close(weight.grad, plain.get_parameter(name).grad, atol=1e-6, rtol=1e-3)
"""


def test_a_group_norm_that_is_the_first_to_learn_gets_its_gradient(tmp_path):
    """In a process of its own: without the guard in `freeze`, PyTorch dies there and would take the tests with it."""
    ended = subprocess.run(
        [sys.executable, "-c", FIRST_TO_LEARN, str(tmp_path)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def test_the_adaptive_weight_needs_the_last_layer(tmp_path):
    with pytest.raises(ValueError, match="decoder.conv_out, which is frozen; leave it out"):
        make(tmp_path, frozen=("decoder.conv_out",))
    make(tmp_path, frozen=("decoder.conv_out",), disc_adaptive=False, disc_start=0).train_step()


def test_the_codebook_starts_where_the_encoder_is(undisturbed):
    records = [json.loads(line) for line in undisturbed[0].splitlines()]
    assert [record["quantizer"] == 0 for record in records[:5]] == [True, True, True, False, False]
    assert records[3]["perplexity"] > 4


def test_a_perceptual_loss_takes_part(tmp_path):
    perceptual = PerceptualLoss(WordFeatures(3, width=4))
    runs = {}
    for weight in (0.0, 1.0):
        folder = tmp_path / str(weight)
        run(folder, perceptual=perceptual, perceptual_weight=weight, steps=2, disc_weight=0.0)
        runs[weight] = log.read(folder / "log.jsonl")
    assert runs[1.0][0]["loss"] > runs[0.0][0]["loss"]
    assert runs[1.0][0]["psnr"] == runs[0.0][0]["psnr"]


def test_full_and_half_precision_agree_at_first(tmp_path):
    losses = []
    for bfloat16 in (True, False):
        new = make(tmp_path / str(bfloat16), bfloat16=bfloat16)
        losses.append(float(new.train_step()["loss"]))
    assert losses[0] != losses[1]
    assert abs(losses[0] - losses[1]) < 0.02 * losses[1]


def test_the_rate_warms_up_and_comes_down(tmp_path):
    new = make(tmp_path, steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [new.learning_rate(step) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.02 <= rates[-1] < 0.03


# --- what is refused


def test_nan_stops_the_run_and_leaves_the_last_good_state(tmp_path):
    class Spoiled(Run):
        def train_step(self):
            if self.step == 7:
                self.model.decoder.conv_out.bias.data.fill_(float("nan"))
            return super().train_step()

    with pytest.raises(FloatingPointError, match="not finite at step 7; lower learning_rate"):
        run(tmp_path, kind=Spoiled)
    assert make(tmp_path).resume() == 5


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_state_is_refused_with_its_name(tmp_path, kept):
    run(tmp_path, steps=1)
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"state.pt is damaged .* or delete it to start anew"):
        make(tmp_path, steps=1).resume()


def test_the_state_of_another_recipe_is_refused(tmp_path):
    run(tmp_path, steps=1)
    with pytest.raises(ValueError, match="another recipe, with learning_rate 0.003 instead of 1.0; give another run"):
        make(tmp_path, steps=1, learning_rate=1.0).resume()
    with pytest.raises(ValueError, match=r"another recipe, with n_embed 48 instead of 50;"):
        make(tmp_path, steps=1, model={"n_embed": 50}).resume()


def test_the_state_of_another_seed_is_refused(tmp_path):
    run(tmp_path, steps=1)
    other = make(tmp_path, steps=1)
    other.seed = 8
    with pytest.raises(ValueError, match="with seed 7 instead of 8"):
        other.resume()


def test_a_setting_that_an_older_state_lacks_has_its_default_there(tmp_path):
    run(tmp_path, steps=8, stop_at=7)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    kept = json.loads(state["training"])
    for name in ("disc_rate", "disc_adaptive", "frozen"):
        del kept[name]
    del state["started"], state["seed"]
    torch.save(state | {"training": json.dumps(kept)}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"with disc_rate 1.0 instead of 2.0, frozen \[\] instead of \['encoder'\];"):
        make(tmp_path, steps=8, disc_rate=2.0, frozen=("encoder",)).resume()
    assert make(tmp_path, steps=8).resume() == 7


def test_a_run_that_started_from_a_stored_network_remembers_that_it_did(tmp_path, monkeypatch):
    stored = VQGAN(VQGANConfig(**MODEL))
    run(tmp_path, start=stored, stop_at=2)
    resumed = make(tmp_path)  # the codebook's start is at step 3
    assert resumed.resume() == 2
    monkeypatch.setattr(resumed, "_initialize_codebook", lambda: pytest.fail("the stored codebook was thrown away"))
    resumed.fit(progress=False)


def test_a_run_may_stop_save_and_log_at_other_steps_when_it_goes_on(tmp_path):
    run(tmp_path / "whole", steps=8)
    run(tmp_path / "parts", steps=8, stop_at=3)
    run(tmp_path / "parts", steps=8, save_every=2, log_every=4)
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts")]
    assert [state["step"] for state in states] == [8, 8]
    for name, weight in states[0]["model"].items():
        assert torch.equal(weight, states[1]["model"][name]), name


@pytest.mark.parametrize(
    "images", [torch.zeros(0, 3, 16, 16, dtype=torch.uint8), torch.zeros(2, 3, 16, 16), torch.zeros(3, 16, 16)]
)
def test_pictures_of_a_wrong_kind_are_refused(tmp_path, images):
    with pytest.raises(ValueError, match="images must be uint8"):
        make(tmp_path, images=images)


def test_a_perceptual_weight_without_a_loss_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no perceptual loss was given"):
        make(tmp_path, perceptual_weight=1.0)


# --- from a recipe


def recipe(folder, **train_changes):
    model = MODEL | {"resolution": 64, "quantizer": "nearest"}
    settings = {"steps": 2, "batch_size": 2, "save_every": 1, "log_every": 1, "codebook_start": 2, **train_changes}
    return {
        "kind": "vqgan",
        "name": "tiny",
        "seed": 1,
        "model": model,
        "train": settings,
        "output": {"path": str(folder)},
    }


def test_a_recipe_becomes_weights_on_disk(tmp_path):
    trained = train(recipe(tmp_path / "out", frozen=["decoder.mid"]), run_dir=tmp_path / "run", progress=False)
    loaded = load_exported(tmp_path / "out")
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, trained.state_dict()[name], atol=1e-3, rtol=1e-3)
    assert [record["step"] for record in log.read(tmp_path / "run/log.jsonl")] == [0, 1]
    with pytest.raises(ValueError, match="already holds a run"):
        train(recipe(tmp_path / "out"), run_dir=tmp_path / "run", resume=False, progress=False)


def test_a_recipe_for_other_data_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="cats"):
        train(recipe(tmp_path) | {"data": {"source": "cats"}}, run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="learning_rat"):
        train(recipe(tmp_path, learning_rat=1.0), run_dir=tmp_path / "run")
