"""The VQGAN in PyTorch: a convolutional encoder, a quantizer, a convolutional decoder.

Modules have the names and the order of taming-transformers (`taming/modules/diffusionmodules/model.py`), so that its
state dicts fit. Attention stands where the *nominal* resolution says, after the block it belongs to, once.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import VQGANConfig
from .quantize import Quantized, build_quantizer


class ResnetBlock(nn.Module):
    """Two normalised 3×3 convolutions around a shortcut: `x + f(x)`; a 1×1 convolution where the channels change."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, dropout: float = 0.0):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=1e-6)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class AttnBlock(nn.Module):
    """Single-head self-attention over all pixels, with 1×1 convolutions as projections."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))  # (B, H·W, C)
        h = F.scaled_dot_product_attention(q, k, v)  # scaled by C^-1/2
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halve the side: pad one row below and one column to the right, then a 3×3 convolution of stride 2."""

    def __init__(self, channels: int, with_conv: bool):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if with_conv else None

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.conv is None else self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the side by repeating pixels, then a 3×3 convolution."""

    def __init__(self, channels: int, with_conv: bool):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if with_conv else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)


class Level(nn.Module):
    """The blocks of one resolution, each followed by its attention block where there is one."""

    def __init__(self, channels: Iterator[tuple[int, int]], attention: bool, config: VQGANConfig):
        super().__init__()
        pairs = list(channels)
        self.block = nn.ModuleList(ResnetBlock(a, b, config.norm_groups, config.dropout) for a, b in pairs)
        self.attn = nn.ModuleList(AttnBlock(b, config.norm_groups) for _, b in pairs if attention)

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, channels: int, config: VQGANConfig):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, config.norm_groups, config.dropout)
        self.attn_1 = AttnBlock(channels, config.norm_groups)
        self.block_2 = ResnetBlock(channels, channels, config.norm_groups, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Pictures `(B, in_channels, H, W)` to features `(B, z_channels, H / f, W / f)`."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        channels, side = config.ch, config.resolution
        for index, mult in enumerate(config.ch_mult):
            out = config.ch * mult
            pairs = [(channels, out)] + [(out, out)] * (config.num_res_blocks - 1)
            level = Level(iter(pairs), side in config.attn_resolutions, config)
            channels = out
            if index < len(config.ch_mult) - 1:
                level.downsample = Downsample(channels, config.resamp_with_conv)
                side //= 2
            self.down.append(level)
        self.mid = Middle(channels, config)
        self.norm_out = nn.GroupNorm(config.norm_groups, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, config.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        h = self.conv_in(images)
        for level in self.down:
            h = level(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Features `(B, z_channels, h, w)` to pictures `(B, out_ch, h · f, w · f)`.

    `up` is stored from the highest resolution to the lowest and run the other way round, as in the original.
    """

    def __init__(self, config: VQGANConfig):
        super().__init__()
        channels, side = config.ch * config.ch_mult[-1], config.grid
        self.conv_in = nn.Conv2d(config.z_channels, channels, 3, padding=1)
        self.mid = Middle(channels, config)
        levels = []
        for index, mult in reversed(list(enumerate(config.ch_mult))):
            out = config.ch * mult
            pairs = [(channels, out)] + [(out, out)] * config.num_res_blocks
            level = Level(iter(pairs), side in config.attn_resolutions, config)
            channels = out
            if index > 0:
                level.upsample = Upsample(channels, config.resamp_with_conv)
                side *= 2
            levels.insert(0, level)
        self.up = nn.ModuleList(levels)
        self.norm_out = nn.GroupNorm(config.norm_groups, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, config.out_ch, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class VQGAN(nn.Module):
    """Encoder, quantizer and decoder; pictures are `(batch, 3, height, width)` in [0, 1] throughout.

    Args:
        config: sizes.
        quantizer_options: keyword arguments of the quantizer (`beta`, `decay`, `revive_after`, …).

    Esser et al. 2021; `taming/models/vqgan.py`.
    """

    def __init__(self, config: VQGANConfig, **quantizer_options):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = build_quantizer(config, **quantizer_options)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    def forward(self, images: Tensor, through_codes: bool = True) -> tuple[Tensor, Quantized | None]:
        """Return the reconstruction (not clipped) and what the quantizer found; without codes a plain autoencoder's."""
        features = self.features(images)
        if not through_codes:
            return self.decoder(self.post_quant_conv(features)), None
        quantized = self.quantize(features)
        return self.decoder(self.post_quant_conv(quantized.vectors)), quantized

    def features(self, images: Tensor) -> Tensor:
        """Return the vectors before quantization, `(batch, embed_dim, H / f, W / f)`."""
        factor = self.config.downsampling
        if images.ndim != 4 or images.shape[1] != self.config.in_channels:
            raise ValueError(
                f"expected pictures (batch, {self.config.in_channels}, height, width), got {tuple(images.shape)}"
            )
        if images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(f"height and width must be multiples of {factor}, got {tuple(images.shape[2:])}")
        return self.quant_conv(self.encoder(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return codes, `(batch, H / f · W / f)` int64, row by row."""
        return self.quantize(self.features(images)).codes

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return pictures in [0, 1] from codes `(batch, code_length)` of a square code map."""
        return self.decode_code(codes).clamp(0, 1)

    def decode_code(self, codes: Tensor) -> Tensor:
        """Return the decoder's output, not clipped, from codes `(batch, code_length)` of a square code map."""
        side = round(codes.shape[1] ** 0.5)
        if side * side != codes.shape[1]:
            raise ValueError(
                f"{codes.shape[1]} codes are not a square map; reshape them and call post_quant_conv and decoder"
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.quantize.n_embed:
            raise ValueError(
                f"codes must lie in [0, {self.quantize.n_embed}), got {int(codes.min())} to {int(codes.max())}"
            )
        vectors = self.quantize.lookup(codes).view(len(codes), side, side, -1).permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(vectors.to(self.post_quant_conv.weight.dtype)))
