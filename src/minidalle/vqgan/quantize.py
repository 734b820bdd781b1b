"""Quantizers: from a vector per pixel to one of `n_embed` codes, and back; four kinds behind one interface.

`quantizer(z)` takes `(batch, embed_dim, height, width)` and returns a `Quantized`; `quantizer.lookup(codes)` gives the
vectors of codes. Every kind lets the decoder's gradient reach the encoder, each in its own way:

- `NearestQuantizer`: nearest code, gradient straight through (van den Oord et al. 2017, section 3.2), or rotated onto
  the code (Fifty et al. 2024);
- `EMAQuantizer`: the same, but the codebook is a running mean of the vectors it attracts (ibid., appendix A.1);
- `GumbelQuantizer`: a soft, noisy choice that hardens (Jang et al. 2017; used by DALL·E, Ramesh et al. 2021);
- `FSQ`: rounds each of a few dimensions; no codebook to learn, none to collapse (Mentzer et al. 2023).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import distributed
from .config import VQGANConfig


class Quantized(NamedTuple):
    """What a quantizer makes of a batch of vectors."""

    vectors: Tensor  # (batch, embed_dim, height, width): the code vectors, carrying a gradient to the input
    codes: Tensor  # (batch, height * width) int64
    loss: Tensor  # scalar: what the quantizer adds to the objective
    perplexity: Tensor  # scalar: exp of the entropy of code use in this batch; n_embed when all are used alike


def nearest_codes(vectors: Tensor, codebook: Tensor, block: int = 8192) -> Tensor:
    """Return the index of the nearest code of each vector, `(n,)` int64.

    |z - e|² = |z|² - 2 z·e + |e|², and |z|² is the same for all codes: one matrix product is enough. It is taken in
    blocks of rows, so that memory stays at `block × n_embed` and no `(n, n_embed, embed_dim)` tensor arises.

    Args:
        vectors: `(n, embed_dim)`.
        codebook: `(n_embed, embed_dim)`.
        block: rows per matrix product.
    """
    with torch.autocast(vectors.device.type, enabled=False):  # in bfloat16 one code in seven would be another
        offset = codebook.square().sum(1)
        return torch.cat([torch.addmm(offset, rows, codebook.T, alpha=-2).argmin(1) for rows in vectors.split(block)])


def perplexity(codes: Tensor, n_embed: int) -> Tensor:
    """Return exp(entropy) of how often each code is used: 1 for a collapsed codebook, `n_embed` for even use.

    Where several processes train together, of the codes of all.
    """
    counts = distributed.total(torch.bincount(codes.flatten(), minlength=n_embed))
    share = counts.float() / (codes.numel() * distributed.world())
    return torch.exp(-torch.special.xlogy(share, share).sum())


def usage(codes: Tensor, n_embed: int) -> float:
    """Return the share of the codebook that occurs in `codes`, from 0 to 1."""
    return codes.unique().numel() / n_embed


def rotate(z: Tensor, code: Tensor) -> Tensor:
    """Give `code` with a gradient that turns and scales as z turns onto it (Fifty et al. 2024, section 4.2).

    Straight-through copies the gradient unchanged; here the part of it that matters for the angle between z and its
    code is kept. The rotation itself counts as a constant. Both arguments are `(n, embed_dim)`.
    """
    z_unit, code_unit = (F.normalize(x.detach(), dim=1) for x in (z, code))
    middle = F.normalize(z_unit + code_unit, dim=1)
    scale = code.detach().norm(dim=1, keepdim=True) / z.detach().norm(dim=1, keepdim=True).clamp_min(1e-6)
    reflected = z - 2 * (z * middle).sum(1, keepdim=True) * middle + 2 * (z * z_unit).sum(1, keepdim=True) * code_unit
    return scale * reflected


def k_means(vectors: Tensor, n_clusters: int, steps: int = 10, generator: torch.Generator | None = None) -> Tensor:
    """Cluster vectors `(n, dim)` with Lloyd's algorithm (1982); an empty cluster keeps its centre. Returns `(n_clusters, dim)`."""
    start = torch.randint(len(vectors), (n_clusters,), generator=generator)
    if len(vectors) >= n_clusters:
        start = torch.randperm(len(vectors), generator=generator)[:n_clusters]
    centres = vectors[start].clone()
    for _ in range(steps):
        codes = nearest_codes(vectors, centres)
        counts = torch.bincount(codes, minlength=n_clusters)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, codes, vectors)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return centres


def _flatten(z: Tensor) -> Tensor:
    """`(batch, dim, height, width)` to `(batch * height * width, dim)`, in float32: distances need the precision."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]).float()


def _unflatten(vectors: Tensor, like: Tensor) -> Tensor:
    batch, dim, height, width = like.shape
    return vectors.reshape(batch, height, width, dim).permute(0, 3, 1, 2)


class NearestQuantizer(nn.Module):
    """The codebook of the VQ-VAE: nearest code forward, straight-through gradient backward.

    Args:
        n_embed, embed_dim: shape of the codebook.
        beta: weight of the commitment loss, which pulls vectors to their codes.
        legacy: put `beta` on the codebook loss instead, as taming-transformers' published models were trained
            (`VectorQuantizer2(legacy=True)`).
        normalize: compare directions only, codes and vectors scaled to length 1 (Yu et al. 2021).
        rotation: pass the gradient by the rotation trick instead of straight through.
        revive_after: steps without a use after which a code is moved onto a random vector of the batch; 0 switches the
            revival of dead codes off ("random restarts", Dhariwal et al. 2020).
    """

    def __init__(self, n_embed, embed_dim, beta=0.25, legacy=False, normalize=False, rotation=False, revive_after=0):
        super().__init__()
        self.n_embed, self.embed_dim = n_embed, embed_dim
        self.beta, self.legacy, self.normalize, self.rotation = beta, legacy, normalize, rotation
        self.revive_after = revive_after
        self.embedding = nn.Embedding(n_embed, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1 / n_embed, 1 / n_embed)
        self.register_buffer("idle", torch.zeros(n_embed, dtype=torch.int64), persistent=False)

    @property
    def codebook(self) -> Tensor:
        """The code vectors as they are looked up, `(n_embed, embed_dim)`."""
        return F.normalize(self.embedding.weight, dim=1) if self.normalize else self.embedding.weight

    def forward(self, z: Tensor) -> Quantized:
        flat = _flatten(z)
        if self.normalize:
            flat = F.normalize(flat, dim=1)
        codes = nearest_codes(flat.detach(), self.codebook.detach())
        vectors = self.codebook[codes]
        loss = self._loss(flat, vectors)
        if self.training:
            self._update(flat.detach(), codes)
        passed = rotate(flat, vectors) if self.rotation else flat + (vectors - flat).detach()
        codes = codes.view(len(z), -1)
        return Quantized(_unflatten(passed, z).to(z.dtype), codes, loss, perplexity(codes, self.n_embed))

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes of any shape, `(*codes.shape, embed_dim)`."""
        return self.codebook[codes]

    def _loss(self, flat: Tensor, vectors: Tensor) -> Tensor:
        to_codes, to_vectors = F.mse_loss(vectors, flat.detach()), F.mse_loss(flat, vectors.detach())
        return to_vectors + self.beta * to_codes if self.legacy else to_codes + self.beta * to_vectors

    @torch.no_grad()
    def _update(self, flat: Tensor, codes: Tensor) -> None:
        """Count how long each code has been idle; move the dead ones."""
        used = distributed.total(torch.bincount(codes, minlength=self.n_embed)) > 0
        self.idle = torch.where(used, 0, self.idle + 1)
        if self.revive_after and (dead := (self.idle >= self.revive_after).nonzero().flatten()).numel():
            self.revive(dead, distributed.draw_rows(flat, len(dead)))

    def revive(self, dead: Tensor, vectors: Tensor) -> None:
        """Move the codes `dead` (indices) onto `vectors`, one each."""
        self.embedding.weight.data[dead] = vectors.to(self.embedding.weight.dtype)
        self.idle[dead] = 0

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Start the codebook from the k-means centres of a batch of encoder outputs."""
        flat = _flatten(z)
        centres = k_means(F.normalize(flat, dim=1) if self.normalize else flat, self.n_embed)
        self.revive(torch.arange(self.n_embed, device=z.device), centres)


class EMAQuantizer(NearestQuantizer):
    """A codebook learned by averaging: each code follows the mean of the vectors it attracts, an online k-means.

    With N the running count of a code and m the running sum of its vectors (decay `decay`), the code is m / N
    (van den Oord et al. 2017, appendix A.1); the only loss left is the commitment. Counts are smoothed by `eps`.
    """

    def __init__(self, n_embed, embed_dim, beta=0.25, decay=0.99, eps=1e-5, revive_after=0, rotation=False):
        super().__init__(n_embed, embed_dim, beta, revive_after=revive_after, rotation=rotation)
        self.decay, self.eps = decay, eps
        self.embedding.weight.requires_grad_(False)
        self.register_buffer("cluster_size", torch.ones(n_embed))
        self.register_buffer("embed_avg", self.embedding.weight.detach().clone())

    def _loss(self, flat: Tensor, vectors: Tensor) -> Tensor:
        return self.beta * F.mse_loss(flat, vectors.detach())

    @torch.no_grad()
    def _update(self, flat: Tensor, codes: Tensor) -> None:
        counts = distributed.total(torch.bincount(codes, minlength=self.n_embed).float())
        sums = distributed.total(torch.zeros_like(self.embed_avg).index_add_(0, codes, flat))
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.embed_avg.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + self.n_embed * self.eps) * total
        self.embedding.weight.copy_(self.embed_avg / smoothed[:, None])
        super()._update(flat, codes)

    def revive(self, dead: Tensor, vectors: Tensor) -> None:
        super().revive(dead, vectors)
        self.cluster_size[dead] = 1.0
        self.embed_avg[dead] = vectors.to(self.embed_avg.dtype)


class GumbelQuantizer(nn.Module):
    """A distribution over codes at each pixel, sampled with Gumbel noise; in evaluation the likeliest code.

    Args:
        temperature: of the softmax; anneal it towards 0 by setting the attribute.
        straight_through: hard one-hot forward, soft gradient backward.
        kl_weight: weight of the divergence of each pixel's distribution from the uniform one.
    """

    def __init__(self, n_embed, embed_dim, temperature=1.0, straight_through=True, kl_weight=5e-4):
        super().__init__()
        self.n_embed, self.embed_dim = n_embed, embed_dim
        self.temperature, self.straight_through, self.kl_weight = temperature, straight_through, kl_weight
        self.proj = nn.Conv2d(embed_dim, n_embed, 1)
        self.embedding = nn.Embedding(n_embed, embed_dim)

    @property
    def codebook(self) -> Tensor:
        return self.embedding.weight

    def forward(self, z: Tensor) -> Quantized:
        logits = _flatten(self.proj(z))
        if self.training:
            weights = F.gumbel_softmax(logits, tau=self.temperature, hard=self.straight_through)
        else:
            weights = F.one_hot(logits.argmax(1), self.n_embed).to(logits.dtype)
        log_share = F.log_softmax(logits, dim=1)
        divergence = (log_share.exp() * (log_share + torch.log(torch.tensor(float(self.n_embed))))).sum(1).mean()
        codes = weights.argmax(1).view(len(z), -1)
        vectors = _unflatten(weights @ self.embedding.weight, z).to(z.dtype)
        return Quantized(vectors, codes, self.kl_weight * divergence, perplexity(codes, self.n_embed))

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes of any shape, `(*codes.shape, embed_dim)`."""
        return self.embedding(codes)


class FSQ(nn.Module):
    """Finite scalar quantization: squash each of `len(levels)` dimensions and round it to one of its levels.

    The codebook is the grid of all level combinations, in [-1, 1]; code = Σ digit_i · Π_{j<i} levels_j, as in
    Mentzer et al. 2023 and the code in its appendix. There is no loss, and nothing to revive.
    """

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.levels = tuple(levels)
        self.embed_dim = len(self.levels)
        self.register_buffer("_levels", torch.tensor(self.levels), persistent=False)
        self.register_buffer("_basis", torch.tensor((1, *self.levels[:-1])).cumprod(0), persistent=False)
        self.n_embed = int(self._levels.prod())

    @property
    def codebook(self) -> Tensor:
        """All grid points, `(n_embed, embed_dim)`, in [-1, 1]."""
        return self.lookup(torch.arange(self.n_embed, device=self._levels.device))

    def _bound(self, z: Tensor) -> Tensor:
        """Squash to the open interval whose integers are the levels; an even count is shifted by a half."""
        half = (self._levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self._levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset

    def forward(self, z: Tensor) -> Quantized:
        bounded = self._bound(_flatten(z))
        rounded = bounded + (bounded.round() - bounded).detach()
        width = self._levels // 2
        codes = ((rounded.detach() + width).round().long() * self._basis).sum(1).view(len(z), -1)
        vectors = _unflatten(rounded / width, z).to(z.dtype)
        return Quantized(vectors, codes, z.new_zeros(()), perplexity(codes, self.n_embed))

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the grid points of codes of any shape, `(*codes.shape, embed_dim)`."""
        width = self._levels // 2
        return ((codes[..., None] // self._basis) % self._levels - width) / width


def build_quantizer(config: VQGANConfig, **options) -> nn.Module:
    """Return the quantizer that `config.quantizer` names; `options` go to its constructor."""
    if config.quantizer == "fsq":
        return FSQ(config.fsq_levels, **options)
    kinds = {"nearest": NearestQuantizer, "ema": EMAQuantizer, "gumbel": GumbelQuantizer}
    return kinds[config.quantizer](config.n_embed, config.embed_dim, **options)
