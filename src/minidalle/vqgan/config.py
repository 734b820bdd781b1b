"""The sizes of a VQGAN, under the names that taming-transformers and vqgan-jax use, so that their configs load as they are."""

import dataclasses
from dataclasses import dataclass
from typing import Any

QUANTIZERS = ("nearest", "ema", "gumbel", "fsq")


@dataclass(frozen=True)
class VQGANConfig:
    """Sizes of the network; the defaults are those of `vqgan_imagenet_f16_16384`, which DALL·E mini uses."""

    ch: int = 128  # channels at full resolution
    ch_mult: tuple[int, ...] = (
        1,
        1,
        2,
        2,
        4,
    )  # channels at each resolution, in units of `ch`; each further one halves the side
    num_res_blocks: int = 2  # per resolution in the encoder; the decoder has one more
    attn_resolutions: tuple[int, ...] = (
        16,
    )  # sides, in pixels of a `resolution` picture, at which attention follows each block
    resolution: int = 256  # side in pixels of the training pictures; other sides work, attention stays where it was
    in_channels: int = 3
    out_ch: int = 3
    z_channels: int = 256  # channels of the encoder's output
    n_embed: int = 16384  # codes in the codebook
    embed_dim: int = 256  # length of a code vector
    dropout: float = 0.0
    resamp_with_conv: bool = True  # down- and upsampling with a 3×3 convolution, not by plain pooling
    double_z: bool = False  # belongs to the KL autoencoders of the same family; refused when True
    give_pre_end: bool = False  # leaves out the decoder's last layer; refused when True
    norm_groups: int = 32  # groups of every GroupNorm; the originals have 32, small networks want fewer
    quantizer: str = "nearest"  # "nearest", "ema", "gumbel" or "fsq"
    fsq_levels: tuple[int, ...] = ()  # levels per dimension, for "fsq" alone; their product is n_embed

    def __post_init__(self):
        for name in ("ch_mult", "attn_resolutions", "fsq_levels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("double_z", "give_pre_end"):
            if getattr(self, name):
                raise ValueError(f"{name}=True is not supported; a VQGAN has {name}=False")
        if self.quantizer not in QUANTIZERS:
            raise ValueError(f"unknown quantizer {self.quantizer!r}; choose one of {', '.join(QUANTIZERS)}")
        for mult in self.ch_mult:
            if self.ch * mult % self.norm_groups:
                raise ValueError(f"{self.ch * mult} channels do not divide into norm_groups={self.norm_groups} groups")
        if self.resolution % self.downsampling:
            raise ValueError(f"resolution {self.resolution} is not a multiple of the downsampling {self.downsampling}")
        if self.quantizer == "fsq":
            product = 1
            for level in self.fsq_levels:
                product *= level
            if product != self.n_embed or len(self.fsq_levels) != self.embed_dim:
                raise ValueError(
                    f"fsq_levels {self.fsq_levels} give {product} codes in {len(self.fsq_levels)} dimensions, "
                    f"but n_embed is {self.n_embed} and embed_dim {self.embed_dim}"
                )

    @property
    def downsampling(self) -> int:
        """The factor f between a picture's side and its code map's."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def grid(self) -> int:
        """Side of the code map of a `resolution` picture."""
        return self.resolution // self.downsampling

    @property
    def code_length(self) -> int:
        """Codes per `resolution` picture."""
        return self.grid**2

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VQGANConfig":
        """Build from a `config.json`; keys that shape no weight (`model_type`, `num_resolutions`, …) are passed over."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }
