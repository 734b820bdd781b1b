"""Quantizers against brute force, against taming-transformers' records, and against vector-quantize-pytorch."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import vector_quantize_pytorch as peers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minidalle.vqgan import (
    FSQ,
    EMAQuantizer,
    GumbelQuantizer,
    NearestQuantizer,
    VQGANConfig,
    build_quantizer,
    k_means,
    nearest_codes,
    perplexity,
    usage,
)
from minidalle.vqgan.quantize import rotate

FIXTURES = Path(__file__).parents[1] / "fixtures"


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation inside makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        sizes = [tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in tensors(made)]
        self.elements = max([self.elements, *sizes])
        return made


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def flat(z):
    """(batch, dim, height, width) as (batch, pixels, dim), the layout of the peers."""
    return z.flatten(2).transpose(1, 2)


# --- nearest codes


@pytest.mark.parametrize("block", [1, 7, 100, 8192])
def test_nearest_codes_are_those_of_brute_force_in_blocks_of_any_size(block):
    vectors, codebook = torch.randn(100, 6), torch.randn(37, 6)
    brute = ((vectors[:, None].double() - codebook[None].double()) ** 2).sum(-1).argmin(1)
    assert torch.equal(nearest_codes(vectors, codebook, block), brute)
    assert brute.unique().numel() > 10


def test_nearest_codes_keep_their_precision_under_autocast():
    generator = torch.Generator().manual_seed(0)
    vectors, codebook = torch.randn(500, 8, generator=generator), torch.randn(64, 8, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        codes = nearest_codes(vectors, codebook)
    assert torch.equal(codes, nearest_codes(vectors, codebook))


def test_nearest_codes_never_build_a_tensor_of_pixels_by_codes_by_dimensions():
    vectors, codebook = torch.randn(2048, 64), torch.randn(256, 64)
    with LargestTensor() as largest:
        nearest_codes(vectors, codebook, block=512)
    assert largest.elements == 512 * 256  # one block of distances, and nothing larger


def test_a_quantizer_in_training_stays_below_pixels_by_codes():
    quantizer = EMAQuantizer(256, 32).train()
    z = torch.randn(2, 32, 32, 32, requires_grad=True)
    with LargestTensor() as largest:
        quantizer(z).vectors.sum().backward()
    assert largest.elements <= 2 * 32 * 32 * 256


# --- taming-transformers' records


@pytest.mark.parametrize(("case", "legacy"), [("vq2_legacy_true", True), ("vq2_legacy_false", False), ("vq1", True)])
def test_losses_and_gradients_are_those_of_taming(case, legacy):
    recorded = {name: torch.from_numpy(value) for name, value in np.load(FIXTURES / "taming_quantizer/io.npz").items()}
    quantizer = NearestQuantizer(20, 6, beta=0.25, legacy=legacy)
    quantizer.embedding.weight.data.copy_(recorded["codebook"])
    z = recorded["z"].clone().requires_grad_()
    found = quantizer(z)
    assert torch.equal(found.codes.flatten(), recorded[f"{case}:indices"].long().flatten())
    torch.testing.assert_close(found.vectors, recorded[f"{case}:zq"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.loss, recorded[f"{case}:loss"], atol=1e-5, rtol=0)
    dz, dcodebook = torch.autograd.grad(found.loss, (z, quantizer.embedding.weight), retain_graph=True)
    torch.testing.assert_close(dz, recorded[f"{case}:dloss_dz"], atol=1e-5, rtol=0)
    torch.testing.assert_close(dcodebook, recorded[f"{case}:dloss_dcodebook"], atol=1e-5, rtol=0)
    (through,) = torch.autograd.grad((found.vectors * recorded["w"]).sum(), z)
    torch.testing.assert_close(through, recorded[f"{case}:straight_through_dz"], atol=1e-5, rtol=0)
    torch.testing.assert_close(through, recorded["w"], atol=1e-6, rtol=0)
    if case == "vq1":
        torch.testing.assert_close(found.perplexity, recorded["vq1:perplexity"], atol=1e-4, rtol=0)


def test_straight_through_leaves_the_codebook_without_the_decoders_gradient():
    quantizer = NearestQuantizer(8, 4)
    z = torch.randn(1, 4, 3, 3, requires_grad=True)
    quantizer(z).vectors.sum().backward()
    assert quantizer.embedding.weight.grad is None or not quantizer.embedding.weight.grad.any()
    torch.testing.assert_close(z.grad, torch.ones_like(z))


# --- exponential moving averages


def test_ema_is_an_online_k_means():
    torch.manual_seed(1)
    quantizer = EMAQuantizer(5, 3, decay=0.9, eps=0.3).train()
    quantizer.initialize(torch.randn(4, 3, 8, 8))
    codebook = quantizer.codebook.numpy().astype(np.float64)
    counts, sums = np.ones(5), codebook.copy()
    for _ in range(4):
        z = torch.randn(2, 3, 5, 5)
        found = quantizer(z)
        vectors = flat(z).reshape(-1, 3).numpy().astype(np.float64)
        codes = [int(np.argmin([np.sum((vector - code) ** 2) for code in codebook])) for vector in vectors]
        assert found.codes.flatten().tolist() == codes
        new_counts, new_sums = np.zeros(5), np.zeros((5, 3))
        for vector, code in zip(vectors, codes, strict=True):
            new_counts[code] += 1
            new_sums[code] += vector
        counts, sums = 0.9 * counts + 0.1 * new_counts, 0.9 * sums + 0.1 * new_sums
        smoothed = (counts + 0.3) / (counts.sum() + 5 * 0.3) * counts.sum()
        codebook = sums / smoothed[:, None]
        np.testing.assert_allclose(quantizer.codebook.numpy(), codebook, atol=1e-5)
        np.testing.assert_allclose(quantizer.cluster_size.numpy(), counts, atol=1e-5)


@pytest.mark.parametrize("rotation", [False, True])
def test_ema_is_that_of_vector_quantize_pytorch(rotation):
    ours = EMAQuantizer(24, 6, beta=0.25, decay=0.95, eps=1e-5, rotation=rotation).train()
    peer = peers.VectorQuantize(
        dim=6, codebook_size=24, decay=0.95, eps=1e-5, commitment_weight=0.25, rotation_trick=rotation
    ).train()
    start = torch.randn(24, 6)
    for table in (ours.embedding.weight.data, ours.embed_avg, peer._codebook.embed[0], peer._codebook.embed_avg[0]):
        table.copy_(start)
    for _ in range(4):
        z = torch.randn(2, 6, 4, 4)
        mine, theirs, weight = z.clone().requires_grad_(), z.clone().requires_grad_(), torch.randn(2, 16, 6)
        found = ours(mine)
        vectors, codes, loss = peer(flat(theirs))
        assert torch.equal(found.codes, codes)
        torch.testing.assert_close(flat(found.vectors), vectors, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.loss, loss.squeeze())
        ((flat(found.vectors) * weight).sum() + found.loss).backward()
        ((vectors * weight).sum() + loss.squeeze()).backward()
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.codebook, peer._codebook.embed[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.cluster_size, peer._codebook.cluster_size[0])


def test_ema_learns_only_in_training():
    quantizer = EMAQuantizer(8, 4).eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(torch.randn(2, 4, 4, 4))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    quantizer.train()(torch.randn(2, 4, 4, 4))
    assert not torch.equal(quantizer.codebook, before["embedding.weight"])


# --- directions alone, and the rotation trick


def test_normalized_codes_are_those_of_cosine_similarity():
    ours = NearestQuantizer(24, 6, normalize=True)
    peer = peers.VectorQuantize(dim=6, codebook_size=24, use_cosine_sim=True).eval()
    ours.embedding.weight.data.copy_(3 * torch.randn(24, 6))
    peer._codebook.embed[0].copy_(F.normalize(ours.embedding.weight.data, dim=1))
    z = 5 * torch.randn(2, 6, 4, 4)
    vectors, codes, _ = peer(flat(z))
    found = ours(z)
    assert torch.equal(found.codes, codes)
    torch.testing.assert_close(flat(found.vectors), vectors, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(2, 4, 4))
    torch.testing.assert_close(ours(7 * z).codes, found.codes)


def test_the_rotation_gives_the_code_and_turns_the_gradient():
    z, codes, weight = torch.randn(50, 5, requires_grad=True), torch.randn(50, 5), torch.randn(50, 5)
    rotated = rotate(z, codes)
    torch.testing.assert_close(rotated, codes, atol=1e-5, rtol=1e-4)
    (rotated * weight).sum().backward()
    for vector, code, given, received in zip(z.detach(), codes, weight, z.grad, strict=True):
        # The gradient keeps its length up to |code| / |z|, and its angle to z is what it was to the code.
        scale = code.norm() / vector.norm()
        torch.testing.assert_close(received.norm(), scale * given.norm(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            F.cosine_similarity(received, vector, 0), F.cosine_similarity(given, code, 0), atol=1e-4, rtol=1e-4
        )


# --- finite scalar quantization


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (4, 3), (7, 6, 5), (3,)])
def test_fsq_is_that_of_vector_quantize_pytorch(levels):
    ours, peer = FSQ(levels), peers.FSQ(list(levels))
    z = 2 * torch.randn(3, len(levels), 6, 6)
    mine, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    found, (vectors, codes) = ours(mine), peer(flat(theirs))
    assert torch.equal(found.codes, codes.long())
    torch.testing.assert_close(flat(found.vectors), vectors)
    weight = torch.randn_like(vectors)
    (flat(found.vectors) * weight).sum().backward()
    (vectors * weight).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    torch.testing.assert_close(ours.codebook, peer.implicit_codebook)


@pytest.mark.parametrize("levels", [(8, 5, 5), (4, 3), (2, 2, 2)])
def test_fsq_codes_and_grid_points_are_one_to_one(levels):
    quantizer = FSQ(levels)
    codes = torch.arange(quantizer.n_embed)
    points = quantizer.lookup(codes)
    assert len({tuple(point) for point in points.tolist()}) == quantizer.n_embed == math.prod(levels)
    assert points.min() == -1
    assert points.max() <= 1
    # The squashing's inverse takes every grid point to a vector that is rounded back to it.
    half = (quantizer._levels - 1) * 1.001 / 2
    offset = torch.where(quantizer._levels % 2 == 0, 0.5, 0.0)
    z = torch.atanh((points * (quantizer._levels // 2) + offset) / half) - torch.atanh(offset / half)
    found = quantizer(z.T[None, :, :, None])
    assert torch.equal(found.codes[0], codes)
    torch.testing.assert_close(found.vectors[0, :, :, 0].T, points)
    assert found.loss == 0


# --- Gumbel-softmax


def gumbel(**options):
    quantizer = GumbelQuantizer(12, 4, **options)
    quantizer.embedding.weight.data.copy_(torch.randn(12, 4))
    return quantizer


def test_a_hard_gumbel_choice_is_a_row_of_the_codebook_with_a_soft_gradient():
    quantizer = gumbel().train()
    z = torch.randn(2, 4, 3, 3, requires_grad=True)
    found = quantizer(z)
    torch.testing.assert_close(flat(found.vectors), quantizer.lookup(found.codes))
    found.vectors.square().sum().backward()
    assert z.grad.abs().sum() > 0
    assert quantizer.proj.weight.grad.abs().sum() > 0
    assert (quantizer.embedding.weight.grad.abs().sum(1) > 0)[found.codes.unique()].all()


def test_a_soft_gumbel_choice_mixes_rows_and_hardens_as_the_temperature_falls():
    quantizer, z = gumbel(straight_through=False).train(), torch.randn(2, 4, 3, 3)
    distances = []
    for temperature in (10.0, 1.0, 0.01):
        torch.manual_seed(3)
        quantizer.temperature = temperature
        found = quantizer(z)
        distances.append((flat(found.vectors) - quantizer.lookup(found.codes)).abs().max().item())
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-2 < distances[1]


def test_gumbel_noise_is_absent_in_evaluation():
    quantizer, z = gumbel().eval(), torch.randn(2, 4, 3, 3)
    first, second = quantizer(z), quantizer(z)
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.codes, quantizer.proj(z).argmax(1).flatten(1))


def test_gumbel_noise_draws_codes_as_often_as_the_softmax_says():
    quantizer = gumbel().train()
    z = torch.randn(1, 4, 1, 1).expand(1, 4, 100, 100)
    share = torch.bincount(quantizer(z).codes.flatten(), minlength=12) / 10_000
    expected = quantizer.proj(z[..., :1, :1]).softmax(1).flatten()
    assert (share - expected).abs().max() < 4 * (expected * (1 - expected) / 10_000).sqrt().max()


def test_the_gumbel_loss_is_the_divergence_from_the_uniform_distribution():
    quantizer, z = gumbel(kl_weight=0.5), torch.randn(2, 4, 3, 3)
    logits = flat(quantizer.proj(z))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits), torch.distributions.Categorical(probs=torch.ones(12) / 12)
    ).mean()
    torch.testing.assert_close(quantizer(z).loss, 0.5 * expected)


# --- dead codes, k-means, measures


@pytest.mark.parametrize("kind", [NearestQuantizer, EMAQuantizer])
def test_a_code_that_nothing_chose_for_long_moves_onto_a_vector_of_the_batch(kind):
    quantizer = kind(4, 2, revive_after=3).train()
    table = torch.tensor([[0.0, 0.0], [1.0, 1.0], [90.0, 90.0], [-90.0, 90.0]])
    quantizer.revive(torch.arange(4), table)
    z = torch.rand(1, 2, 4, 4)
    for step in range(3):
        assert quantizer.idle[2] == step
        quantizer(z)
    inside = flat(z)[0]
    moved = quantizer.codebook[2:].detach()
    assert all((inside == vector).all(1).any() for vector in moved)
    assert (quantizer.idle == 0).all()
    if kind is EMAQuantizer:
        assert torch.equal(quantizer.cluster_size[2:], torch.ones(2))
        assert torch.equal(quantizer.embed_avg[2:], moved)
    else:
        assert torch.equal(quantizer.codebook[:2], table[:2])


def test_no_code_moves_when_revival_is_off():
    quantizer = NearestQuantizer(4, 2).train()
    before = quantizer.codebook.detach().clone()
    for _ in range(5):
        quantizer(torch.rand(1, 2, 4, 4))
    assert torch.equal(quantizer.codebook, before)


def test_k_means_finds_clusters_that_stand_apart():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = (centres[:, None] + 0.1 * torch.randn(3, 50, 2)).reshape(-1, 2)
    means = torch.stack([vectors[:50].mean(0), vectors[50:100].mean(0), vectors[100:].mean(0)])
    starts = [k_means(vectors, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(10)]
    best = min(starts, key=lambda found: (vectors - found[nearest_codes(vectors, found)]).square().sum())
    torch.testing.assert_close(best[nearest_codes(means, best)], means)


def test_more_steps_of_k_means_never_fit_worse():
    vectors = torch.randn(300, 4)
    errors = []
    for steps in range(6):
        found = k_means(vectors, 16, steps, torch.Generator().manual_seed(0))
        errors.append((vectors - found[nearest_codes(vectors, found)]).square().sum().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]


def test_k_means_of_fewer_vectors_than_clusters_repeats_them():
    vectors = torch.randn(3, 2)
    found = k_means(vectors, 8)
    assert found.shape == (8, 2)
    assert all((vectors - centre).abs().max(1).values.min() < 1e-6 for centre in found)


@pytest.mark.parametrize("kind", [NearestQuantizer, EMAQuantizer])
def test_initializing_covers_what_the_encoder_says(kind):
    quantizer, z = kind(16, 4), 3 + torch.randn(2, 4, 8, 8)
    before = (quantizer(z).vectors - z).square().mean()
    quantizer.initialize(z)
    found = quantizer.eval()(z)
    assert (found.vectors - z).square().mean() < 0.1 * before
    assert usage(found.codes, 16) == 1.0


def test_perplexity_counts_the_codes_in_even_use():
    assert perplexity(torch.zeros(100, dtype=torch.int64), 50) == 1
    torch.testing.assert_close(perplexity(torch.arange(50).repeat(3), 50), torch.tensor(50.0))
    torch.testing.assert_close(perplexity(torch.tensor([[0, 0, 0, 1]]), 9), torch.tensor(4 / 3**0.75))


def test_usage_is_the_share_of_codes_seen():
    assert usage(torch.tensor([[1, 1], [3, 1]]), 8) == 0.25


@pytest.mark.parametrize("quantizer", ["nearest", "ema", "gumbel", "fsq"])
def test_every_quantizer_keeps_one_interface(quantizer):
    levels = {"fsq_levels": (4, 3), "embed_dim": 2, "n_embed": 12} if quantizer == "fsq" else {}
    config = VQGANConfig(**{"n_embed": 12, "embed_dim": 4, "quantizer": quantizer, **levels})
    built = build_quantizer(config)
    z = torch.randn(2, config.embed_dim, 3, 5, requires_grad=True)
    for training in (True, False):
        found = built.train(training)(z)
        assert found.vectors.shape == z.shape
        assert found.codes.shape == (2, 15)
        assert found.codes.dtype == torch.int64
        assert found.loss.ndim == found.perplexity.ndim == 0
        assert 0 <= found.codes.min() <= found.codes.max() < 12
        assert 1 <= found.perplexity <= 12
    torch.testing.assert_close(flat(found.vectors), built.lookup(found.codes))
    assert built.codebook.shape == (12, config.embed_dim)
