"""What a reconstruction is judged by: pixels, features, and a discriminator of patches.

The generator's objective is Esser et al. 2021, eq. 4 to 7: reconstruction + perceptual + adaptive weight × adversarial
+ the quantizer's own loss; a hinge stands for the logarithms of eq. 5, as in their code. Pictures are
`(batch, 3, height, width)` in [0, 1].
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import distributed

VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def reconstruction_loss(images: Tensor, reconstructions: Tensor, l1: float = 1.0, l2: float = 0.0) -> Tensor:
    """Return `l1 · mean |x - y| + l2 · mean (x - y)²`; L2 rewards the mean of all plausible pictures, so it blurs."""
    difference = images - reconstructions
    return l1 * difference.abs().mean() + l2 * difference.square().mean()


class PerceptualLoss(nn.Module):
    """Distance between two pictures in the features of a frozen network (Zhang et al. 2018, eq. 1).

    Features of every layer are scaled to length 1 at each pixel, subtracted, squared, weighted per channel and averaged.

    Args:
        extractor: maps pictures in [0, 1] to a list of feature maps `(batch, channels, h, w)`; any network will do. The
            shipped emoji VQGAN was trained without a perceptual term; the chapters use `WordFeatures`, trained here.
        weights: one vector of channel weights per feature map, all ones where absent.
    """

    def __init__(self, extractor: nn.Module, weights: Sequence[Tensor] | None = None):
        super().__init__()
        self.extractor = extractor.eval().requires_grad_(False)
        self.channel_weights = None if weights is None else [weight.detach().view(1, -1, 1, 1) for weight in weights]

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Stay in evaluation mode: the features are a fixed ruler."""
        return super().train(False)

    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Return the mean distance, a scalar; the gradient flows to both pictures."""
        total = images.new_zeros(())
        for index, (a, b) in enumerate(zip(self.extractor(images), self.extractor(reconstructions), strict=True)):
            difference = (F.normalize(a, dim=1, eps=1e-10) - F.normalize(b, dim=1, eps=1e-10)).square()
            if self.channel_weights is None:
                total = total + difference.sum(1).mean()
            else:
                total = total + (difference * self.channel_weights[index].to(difference)).sum(1).mean()
        return total


class VGG16Features(nn.Module):
    """The five feature maps of VGG16 that LPIPS compares, from torchvision's `vgg16-397923af.pth` on disk.

    Nothing is downloaded. Args: widths, to build a narrow twin for tests; the published network has the default.
    """

    def __init__(self, blocks: Sequence[Sequence[int]] = VGG16_BLOCKS):
        super().__init__()
        layers, cuts, channels = [], [], 3
        for number, widths in enumerate(blocks):
            if number:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            cuts.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.cuts = cuts
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        h, found = (2 * images - 1 - self.shift) / self.scale, []
        for index, layer in enumerate(self.features):
            h = layer(h)
            if index in self.cuts:
                found.append(h)
        return found


def lpips(vgg_path: str | Path, linear_path: str | Path) -> PerceptualLoss:
    """Return LPIPS on VGG16 from two files on disk: torchvision's VGG16 and LPIPS' `vgg.pth` (linear layers)."""
    extractor = VGG16Features()
    state = torch.load(vgg_path, map_location="cpu", weights_only=True)
    extractor.load_state_dict({key: value for key, value in state.items() if key.startswith("features.")})
    linear = torch.load(linear_path, map_location="cpu", weights_only=True)
    return PerceptualLoss(extractor, [linear[f"lin{index}.model.1.weight"].flatten() for index in range(5)])


class WordFeatures(nn.Module):
    """A small network that learns which words stand in a picture's caption; its layers see what words are about.

    Args:
        n_words: size of the bag of words it predicts.
        width: channels of the first layer; each of the four layers halves the side and widens.
    """

    def __init__(self, n_words: int, width: int = 24):
        super().__init__()
        widths = (3, width, 2 * width, 3 * width, 4 * width)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.head = nn.Linear(widths[-1], n_words)

    def forward(self, images: Tensor) -> list[Tensor]:
        h, found = 2 * images - 1, []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.1)
            found.append(h)
        return found

    def words(self, images: Tensor) -> Tensor:
        """Return the logits of each word, `(batch, n_words)`."""
        return self.head(self(images)[-1].mean((2, 3)))


def train_word_features(
    images: Tensor, words: Tensor, steps: int = 300, batch_size: int = 64, seed: int = 0
) -> WordFeatures:
    """Train `WordFeatures` on pictures `(n, 3, H, W)` in [0, 1] and bags of words `(n, n_words)` of 0 and 1."""
    torch.manual_seed(seed)
    network = WordFeatures(words.shape[1]).to(images.device)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(steps):
        rows = torch.randint(len(images), (batch_size,))
        loss = F.binary_cross_entropy_with_logits(network.words(images[rows]), words[rows].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


class Discriminator(nn.Module):
    """PatchGAN: judges overlapping patches, not the whole picture (Isola et al. 2017, section 3.2.2).

    Layers and names as in taming's `NLayerDiscriminator`: 4×4 convolutions, LeakyReLU 0.2, BatchNorm in between,
    weights N(0, 0.02). Returns logits `(batch, 1, h, w)`, one per patch: high for "real".
    """

    def __init__(self, in_channels: int = 3, ndf: int = 64, n_layers: int = 3):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = ndf
        for index in range(1, n_layers + 1):
            out = ndf * min(2**index, 8)
            stride = 2 if index < n_layers else 1
            layers += [
                nn.Conv2d(channels, out, 4, stride, 1, bias=False),
                distributed.BatchNorm(out),
                nn.LeakyReLU(0.2),
            ]
            channels = out
        layers.append(nn.Conv2d(channels, 1, 4, 1, 1))
        self.main = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.main(images)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator: real logits above 1, fake logits below -1 cost nothing (Lim & Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """Return what the generator minimises: minus the mean logit of its pictures."""
    return -fake.mean()


def train_discriminator(
    images: Tensor, reconstructions: Tensor, channels: int = 16, n_layers: int = 2, steps: int = 150, seed: int = 0
) -> Discriminator:
    """Train a `Discriminator` to tell pictures from their reconstructions, both `(n, 3, H, W)` in [0, 1].

    A picture and its reconstruction are always in the same step, so that nothing but the reconstruction tells them apart.
    """
    torch.manual_seed(seed)
    network = Discriminator(images.shape[1], channels, n_layers).to(images.device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, betas=(0.5, 0.9))
    for _ in range(steps):
        rows = torch.randint(len(images), (16,))
        loss = discriminator_loss(network(images[rows]), network(reconstructions[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Return the weight that makes both losses pull equally hard at the decoder's last layer (Esser et al. 2021, eq. 7).

    The ratio of gradient norms, with taming's 1e-4 in the denominator, clipped to [0, 10 000]; no gradient. Where
    several processes train together, both losses are theirs taken together, and so is the weight.
    """
    norms = [
        distributed.mean(torch.autograd.grad(loss, last_layer, retain_graph=True)[0]).norm()
        for loss in (reconstruction, adversarial)
    ]
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()
