"""Losses against what taming-transformers recorded, down to the gradients of a whole training step."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from minidalle.vqgan import VQGAN, VQGANConfig, losses
from minidalle.vqgan.losses import (
    Discriminator,
    PerceptualLoss,
    VGG16Features,
    WordFeatures,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    reconstruction_loss,
    train_discriminator,
    train_word_features,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"
NARROW = ((4, 4), (6, 6), (8, 8, 8), (10, 10, 10), (12, 12, 12))  # the fixtures' VGG


def read(case):
    return {name: torch.from_numpy(np.asarray(value)) for name, value in np.load(FIXTURES / case / "io.npz").items()}


def narrow_lpips(state):
    """LPIPS on the fixtures' narrow VGG; `net.slice2.5.weight` there is layer 5 of torchvision's VGG16."""
    extractor = VGG16Features(NARROW)
    convolutions = {
        f"features.{name.split('.')[2]}.{name.split('.')[3]}": value.float()
        for name, value in state.items()
        if name.startswith("net.slice")
    }
    extractor.load_state_dict(convolutions)
    return PerceptualLoss(extractor, [state[f"lin{index}.model.1.weight"].float().flatten() for index in range(5)])


# --- the discriminator


@pytest.fixture
def judged():
    """The original's PatchGAN with batch norm, and what it said."""
    state = torch.load(FIXTURES / "taming_discriminator/disc.ckpt", weights_only=True)["state_dict"]
    discriminator = Discriminator(3, 6, 2)
    discriminator.load_state_dict(
        {name.removeprefix("bn:"): value for name, value in state.items() if name.startswith("bn:")}
    )
    return discriminator, read("taming_discriminator")


def test_the_discriminator_in_evaluation_is_that_of_taming(judged):
    discriminator, recorded = judged
    for which in ("real", "fake"):
        logits = discriminator.eval()(recorded[which])
        torch.testing.assert_close(logits, recorded[f"bn:eval_logits_{which}"], atol=1e-4, rtol=0)


def test_the_discriminators_loss_gradients_and_statistics_are_those_of_taming(judged):
    discriminator, recorded = judged
    real, fake = discriminator.train()(recorded["real"]), discriminator(recorded["fake"])
    torch.testing.assert_close(real, recorded["bn:train_logits_real"], atol=1e-4, rtol=0)
    torch.testing.assert_close(fake, recorded["bn:train_logits_fake"], atol=1e-4, rtol=0)
    loss = discriminator_loss(real, fake)
    torch.testing.assert_close(loss, recorded["bn:hinge_d_loss"], atol=1e-5, rtol=0)
    torch.testing.assert_close(generator_loss(fake), recorded["bn:g_loss"], atol=1e-5, rtol=0)
    loss.backward()
    for name, parameter in discriminator.named_parameters():
        expected = recorded[f"bn:grad_hinge:{name}"]
        assert (parameter.grad - expected).norm() < 1e-3 * expected.norm() + 1e-6, name
    for name in ("main.3.running_mean", "main.3.running_var", "main.6.running_mean", "main.6.running_var"):
        torch.testing.assert_close(discriminator.state_dict()[name], recorded[f"bn:after:{name}"], atol=1e-5, rtol=0)


def test_the_hinge_asks_for_no_more_than_a_margin_of_one():
    assert discriminator_loss(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -3.0])) == 0
    assert discriminator_loss(torch.tensor([0.0]), torch.tensor([0.5])) == 0.5 * (1 + 1.5)
    assert generator_loss(torch.tensor([2.0, 4.0])) == -3


def test_the_discriminator_starts_as_the_paper_says():
    discriminator = Discriminator(3, 32, 2)
    assert abs(discriminator.main[5].weight.std().item() - 0.02) < 1e-3
    assert discriminator(torch.rand(2, 3, 32, 32)).shape == (2, 1, 6, 6)


def test_a_discriminator_learns_to_tell_a_blur_from_a_picture_it_never_saw():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(80, 3, 16, 16, generator=generator)
    blurred = nn.functional.avg_pool2d(images, 3, 1, 1)
    network = train_discriminator(images[:60], blurred[:60], channels=8, n_layers=1, steps=60)
    real, fake = network(images[60:]), network(blurred[60:])
    assert (real > fake).float().mean() > 0.95
    again = train_discriminator(images[:60], blurred[:60], channels=8, n_layers=1, steps=60)
    assert torch.equal(again.main[0].weight, network.main[0].weight)


# --- the adaptive weight


def test_the_adaptive_weight_makes_both_losses_pull_equally_hard():
    layer = nn.Parameter(torch.randn(5))
    target = torch.randn(5)
    weight = adaptive_weight((layer - target).square().sum(), 0.01 * layer.sum(), layer)
    pull = (2 * (layer - target)).detach().norm()
    torch.testing.assert_close(weight, pull / (0.01 * 5**0.5 + 1e-4))
    assert not weight.requires_grad


def test_the_adaptive_weight_is_bounded_where_the_discriminator_does_not_pull():
    layer = nn.Parameter(torch.ones(5))
    assert adaptive_weight(1e4 * layer.square().sum(), 0 * layer.sum(), layer) == 1e4


# --- perceptual


def test_lpips_and_its_gradient_are_those_of_taming():
    recorded = read("taming_lpips")
    perceptual = narrow_lpips(torch.load(FIXTURES / "taming_lpips/lpips.pth", weights_only=True))
    images, target = (recorded["input"] + 1) / 2, ((recorded["target"] + 1) / 2).requires_grad_()
    for found, index in zip(perceptual.extractor(images), range(5), strict=True):
        torch.testing.assert_close(found, recorded[f"feat{index}_input"], atol=1e-4, rtol=0)
    for row in range(2):
        distance = perceptual(images[row : row + 1], target[row : row + 1])
        torch.testing.assert_close(distance, recorded["lpips"][row].squeeze(), atol=1e-4, rtol=0)
    (2 * perceptual(images, target)).backward()  # the mean of two is half of their sum, which was recorded
    expected = 2 * recorded["grad_target_of_sum"]  # ours is in [0, 1], half as wide as theirs
    assert (target.grad - expected).norm() < 1e-3 * expected.norm()


def test_lpips_reads_the_published_files(tmp_path, monkeypatch):
    state = torch.load(FIXTURES / "taming_lpips/lpips.pth", weights_only=True)
    expected = narrow_lpips(state)
    torch.save(
        expected.extractor.state_dict() | {"classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg16-397923af.pth"
    )
    torch.save({name: value for name, value in state.items() if name.startswith("lin")}, tmp_path / "vgg.pth")
    monkeypatch.setattr(losses, "VGG16Features", functools.partial(VGG16Features, NARROW))
    loaded = losses.lpips(tmp_path / "vgg16-397923af.pth", tmp_path / "vgg.pth")
    a, b = torch.rand(2, 2, 3, 32, 32)
    torch.testing.assert_close(loaded(a, b), expected(a, b))


def test_vgg16_has_as_many_weights_as_torchvisions_without_its_head():
    with torch.device("meta"):
        features = VGG16Features()
    assert sum(weight.numel() for weight in features.parameters()) == 14_714_688
    assert features.cuts == [3, 8, 15, 22, 29]


class Edges(nn.Module):
    """A stand-in for any network: differences along one axis."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return [self.dropout(self.gain * images.diff(dim=3)), images.diff(dim=2)]


def test_any_network_can_judge():
    perceptual = PerceptualLoss(Edges())
    images, others = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8, requires_grad=True)
    assert perceptual(images, images) == 0
    distance = perceptual(images, others)
    distance.backward()
    assert distance > 0
    assert others.grad.abs().sum() > 0


def test_the_judge_is_a_fixed_ruler():
    perceptual = PerceptualLoss(Edges()).train()
    assert not perceptual.training
    assert not perceptual.extractor.training
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())
    images, others = torch.rand(2, 2, 3, 8, 8)
    assert perceptual(images, others) == perceptual(images, others)


def test_word_features_learn_what_captions_are_about():
    torch.manual_seed(0)
    words = torch.eye(3).repeat(40, 1)
    images = 0.2 * torch.rand(120, 3, 16, 16) + 0.8 * words[:, :, None, None] * torch.rand(120, 1, 1, 1)
    network = train_word_features(images, words, steps=60, batch_size=32, seed=1)
    right = network.words(images).argmax(1) == words.argmax(1)
    assert right.float().mean() > 0.85
    again = train_word_features(images, words, steps=60, batch_size=32, seed=1)
    assert torch.equal(again.head.weight, network.head.weight)
    assert PerceptualLoss(network)(images[:1], images[1:2]) > 0
    assert [features.shape[1] for features in WordFeatures(3, width=8)(images[:1])] == [8, 16, 24, 32]


def test_pixels_are_compared_by_both_norms():
    a, b = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert reconstruction_loss(a, b) == 0.5
    assert reconstruction_loss(a, b, l1=0.0, l2=2.0) == 0.5
    assert reconstruction_loss(a, b, l1=1.0, l2=1.0) == 0.75


# --- a whole training step


@pytest.fixture(scope="module")
def step():
    """Every term of taming's training step, computed here from its weights and its picture."""
    meta = json.loads((FIXTURES / "taming_trainstep/meta.json").read_text())
    state = torch.load(FIXTURES / "taming_trainstep/model.ckpt", weights_only=True)["state_dict"]
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    model = VQGAN(VQGANConfig.from_dict(meta["config"]), legacy=True)
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith("loss.")})
    discriminator = Discriminator(3, meta["lossconfig"]["disc_ndf"], meta["lossconfig"]["disc_num_layers"])
    parts = {}
    for prefix in ("loss.discriminator.", "loss.perceptual_loss."):
        parts[prefix] = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    discriminator.load_state_dict(parts["loss.discriminator."])
    perceptual = narrow_lpips(parts["loss.perceptual_loss."])

    recorded = read("taming_trainstep")
    images = recorded["image"].permute(0, 3, 1, 2).contiguous()
    reconstruction, quantized = model.train()(images)
    p_loss = perceptual((images + 1) / 2, (reconstruction + 1) / 2)
    nll = reconstruction_loss(images, reconstruction) + p_loss
    g_loss = generator_loss(discriminator.train()(reconstruction))
    d_weight = 0.75 * adaptive_weight(nll, g_loss, model.decoder.conv_out.weight)
    total = nll + d_weight * g_loss + quantized.loss
    discriminator.zero_grad()
    total.backward(retain_graph=True)
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    discriminator.zero_grad()
    disc_loss = discriminator_loss(discriminator(images), discriminator(reconstruction.detach()))
    disc_loss.backward()
    found = {
        "train/total_loss": total,
        "train/quant_loss": quantized.loss,
        "train/nll_loss": nll,
        "train/p_loss": p_loss,
        "train/d_weight": d_weight,
        "train/g_loss": g_loss,
        "train/disc_loss": disc_loss,
    }
    return meta, recorded, {name: value.item() for name, value in found.items()}, gradients, quantized, discriminator


def test_every_term_of_a_training_step_is_that_of_taming(step):
    meta, recorded, found, _, quantized, _ = step
    assert torch.equal(quantized.codes, recorded["indices"].long())
    for name, value in found.items():
        assert abs(value - meta["logs"][name]) < 1e-4 * abs(meta["logs"][name]), name
    before = next(value for name, value in meta.items() if name.startswith("logs_before_disc_start"))
    assert abs(found["train/nll_loss"] + found["train/quant_loss"] - before["train/total_loss"]) < 5e-4


def test_the_generators_gradient_is_that_of_taming(step):
    meta, recorded, _, gradients, _, _ = step
    assert gradients.keys() == meta["gen_grad_norms"].keys()
    for name, expected in meta["gen_grad_norms"].items():
        assert abs(gradients[name].norm().item() - expected) < 2e-3 * expected + 1e-5, name
    for name in ("quantize.embedding.weight", "decoder.conv_out.weight", "encoder.conv_in.weight"):
        expected = recorded[f"grad:{name}"]
        assert (gradients[name] - expected).norm() < 2e-3 * expected.norm(), name


def test_the_discriminators_gradient_is_that_of_taming(step):
    meta, _, _, _, _, discriminator = step
    for name, parameter in discriminator.named_parameters():
        expected = meta["disc_grad_norms"][f"loss.discriminator.{name}"]
        assert abs(parameter.grad.norm().item() - expected) < 2e-3 * expected + 1e-6, name
