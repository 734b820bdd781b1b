"""OpenAI's discrete VAE, the picture tokenizer of the first DALL·E: another way from pictures to codes and back.

Where a VQGAN looks up the nearest vector, its encoder scores every code for each place (a softmax over the vocabulary,
trained with Gumbel noise), and the decoder reads the code as a one-hot vector. Blocks are ResNet bottlenecks; their
residual branch is scaled down by the depth squared, in place of normalisation.

After Ramesh et al. 2021, appendix A, and openai/DALL-E, `dall_e/encoder.py` and `decoder.py`.
"""

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 0.1  # pictures are squeezed into [0.1, 0.9], where the logit-Laplace distribution behaves
WIDTHS = (1, 2, 4, 8)  # channels of the four groups, in units of n_hid; each further one halves the side


def conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A convolution that keeps the side."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


class Block(nn.Module):
    """A shortcut plus four convolutions, each after a ReLU, a quarter as wide inside."""

    def __init__(self, inputs: int, outputs: int, sizes: tuple[int, ...], gain: float):
        super().__init__()
        self.gain, hidden = gain, outputs // 4
        self.id_path = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        widths = [inputs, hidden, hidden, hidden, outputs]
        pairs = zip(widths, widths[1:], sizes)
        self.res_path = nn.ModuleList(conv(before, after, size) for before, after, size in pairs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x
        for layer in self.res_path:
            h = layer(F.relu(h))
        return self.id_path(x) + self.gain * h


class Half(nn.Module):
    """Encoder or decoder: a first convolution, four groups of blocks, a ReLU and a last convolution.

    Args:
        widths: channels that enter the first group, then of each group.
        first, last: channels read and written.
        blocks: in each group.
        encodes: halves the side between groups (maximum of 2×2); otherwise doubles it (repeated pixels).
    """

    def __init__(self, widths: tuple[int, ...], first: int, last: int, blocks: int, encodes: bool):
        super().__init__()
        self.encodes = encodes
        sizes, gain = ((3, 3, 3, 1) if encodes else (1, 3, 3, 3)), (len(WIDTHS) * blocks) ** -2
        self.input = conv(first, widths[0], 7 if encodes else 1)
        self.groups = nn.ModuleList(
            nn.Sequential(*(Block(before if index == 0 else after, after, sizes, gain) for index in range(blocks)))
            for before, after in zip(widths, widths[1:])
        )
        self.output = conv(widths[-1], last, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.input(x)
        for index, group in enumerate(self.groups):
            if index > 0:
                x = F.max_pool2d(x, 2) if self.encodes else F.interpolate(x, scale_factor=2, mode="nearest")
            x = group(x)
        return self.output(F.relu(x))


class DVAE(nn.Module):
    """Pictures to codes and back, eight pixels to a code's side; the published one has 8,192 codes.

    Args:
        vocab_size: codes.
        n_hid, n_init: width of the groups, and of the decoder's first layer.
        blocks: in each of the four groups.
    """

    def __init__(self, vocab_size: int = 8192, n_hid: int = 256, n_init: int = 128, blocks: int = 2):
        super().__init__()
        self.vocab_size = vocab_size
        widths = tuple(width * n_hid for width in WIDTHS)
        self.encoder = Half((n_hid, *widths), 3, vocab_size, blocks, encodes=True)
        # Six outputs: mean and logarithm of the spread of the logit-Laplace distribution, for each colour.
        self.decoder = Half((n_init, *reversed(widths)), vocab_size, 6, blocks, encodes=False)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (B, vocab_size, H / 8, W / 8) of every code at every place of pictures (B, 3, H, W) in [0, 1].

        Raises:
            ValueError: another shape, or sides that are no multiples of 8.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 8 or images.shape[3] % 8:
            raise ValueError(f"expected pictures (batch, 3, height, width), sides in eights, got {tuple(images.shape)}")
        return self.encoder((1 - 2 * EPSILON) * images + EPSILON)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The likeliest codes (B, H / 8 · W / 8), row by row; pictures and errors as for `logits`."""
        return self.logits(images).argmax(1).flatten(1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, 8 · h, 8 · w) in [0, 1] from codes (B, h · w) of a square map, or from a map (B, h, w).

        Raises:
            ValueError: the codes are no square map, or outside [0, vocab_size).
        """
        if codes.ndim == 2:
            side = round(codes.shape[1] ** 0.5)
            if side * side != codes.shape[1]:
                raise ValueError(f"{codes.shape[1]} codes are not a square map; give (batch, height, width)")
            codes = codes.reshape(-1, side, side)
        if codes.min() < 0 or codes.max() >= self.vocab_size:
            raise ValueError(f"codes must lie in [0, {self.vocab_size}), got {int(codes.min())} to {int(codes.max())}")
        drawn = self.decoder(F.one_hot(codes.long(), self.vocab_size).movedim(-1, 1).float())
        return ((drawn[:, :3].sigmoid() - EPSILON) / (1 - 2 * EPSILON)).clamp(0, 1)
