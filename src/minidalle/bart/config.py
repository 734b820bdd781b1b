"""The configuration of DalleBart: the original's field names and defaults, checked when it is built."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

ACTIVATIONS = ("gelu", "relu", "silu", "swish", "gelu_new", "quick_gelu", "smelu")
LN_TYPES = ("layernorm", "rmsnorm")
LN_POSITIONS = ("normformer", "swinv2", "cogview", "postln", "preln", "subln")
SWIN_PERIOD = 6  # "swinv2" has a norm behind every so many layers

# Keys of an original config.json that say nothing about the network: transformers wrote them, nobody here reads them.
IGNORED_KEYS = frozenset(
    {
        "_name_or_path",
        "architectures",
        "dtype",
        "max_length",
        "min_length",
        "model_type",
        "torch_dtype",
        "transformers_version",
    }
)


@dataclasses.dataclass(frozen=True)
class DalleBartConfig:
    """Sizes and switches of a DalleBart, named as in the original, so that its ``config.json`` loads as it is.

    Defaults are the original class's (dalle-mini, ``model/configuration.py``). Token ids left at ``None`` become
    ``image_vocab_size``, the extra row of the decoder's table; ``ln_positions="deepnet"`` becomes "postln".

    Raises:
        ValueError: a size is not positive, a rate is outside [0, 1), the heads do not divide ``d_model``, or a switch
            asks for what neither the original nor this one builds; the message names the field.
    """

    normalize_text: bool = False
    encoder_vocab_size: int = 50264  # rows of the text table
    image_vocab_size: int = 16384  # codes; the image table and the logits have one row more
    image_length: int = 256  # codes a picture
    max_text_length: int = 64  # tokens a caption, <s> and </s> counted
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    activation_function: str = "gelu"  # the exact gelu, with the error function
    d_model: int = 1024
    dropout: float = 0.1  # embeddings and the end of each residual branch
    attention_dropout: float = 0.0  # attention weights
    activation_dropout: float = 0.0  # inside the feed-forward block
    init_std: float = 0.02
    scale_embedding: bool = False  # token embeddings times sqrt(d_model)
    gradient_checkpointing: bool = True  # recompute each layer in the backward pass instead of storing it
    use_scan: bool | None = None  # None: True, but for swinv2. One loop over depth in training, or layers written out
    use_cache: bool = True
    is_encoder_decoder: bool = True
    forced_eos_token_id: int | None = None
    tie_word_embeddings: bool = False  # the logits' matrix is the decoder's token table
    do_sample: bool = True
    use_bias: bool = False  # biases in dense layers (norms have theirs regardless)
    ln_type: str = "layernorm"  # or "rmsnorm"
    ln_positions: str = "normformer"  # or another of LN_POSITIONS, see `model.ATTENTION_NORMS`
    use_head_scale: bool = False  # a learned factor for each attention head
    use_cosine_attention: bool = False  # compare directions: queries and keys of length 1, over tau
    tau_init: float = 0.05
    use_absolute_position_embeddings: bool = True
    use_swin_position_embeddings: bool = False  # a learned addition for each head and pair of positions
    use_deepnet_scaling: bool = False  # stronger residual stream, smaller initial weights
    use_subln_init: bool = False  # larger initial weights
    use_glu: bool = True  # gated feed-forward block, otherwise a plain one
    use_alibi: bool = False  # never built, in the original neither
    sinkhorn_iters: int = 1  # encoder: more than one normalise the attention over rows and columns in turn
    use_final_ln_encoder: bool = True
    use_final_ln_decoder: bool = True
    force_ln_scale: bool = False  # give a scale also to the norms that feed straight into a dense layer
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    decoder_start_token_id: int | None = None
    bos_token_id: int | None = None
    pad_token_id: int | None = None
    eos_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id", "eos_token_id"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.image_vocab_size)
        if self.ln_positions == "deepnet":
            object.__setattr__(self, "ln_positions", "postln")
        if self.use_scan is None:
            object.__setattr__(self, "use_scan", self.ln_positions != "swinv2")
        self._check_numbers()
        self._check_variants()

    @property
    def codebook_size(self) -> int:
        """Codes that may be drawn: those below the start token. Mega's table is padded far beyond its 16,384 codes."""
        return min(self.image_vocab_size, self.decoder_start_token_id)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, strict: bool = True) -> "DalleBartConfig":
        """A configuration from plain values, such as a parsed ``config.json``.

        Args:
            values: field names and values; keys that transformers adds and that say nothing of the network are dropped.
            strict: refuse an unknown key (a typing mistake in a recipe); otherwise warn and drop it.

        Raises:
            ValueError: ``model_type`` is another model's, a key is unknown and ``strict``, or a value is refused.
        """
        if values.get("model_type", "dallebart") != "dallebart":
            raise ValueError(f"this config is of model_type {values['model_type']!r}; DalleBart expects 'dallebart'")
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - fields - IGNORED_KEYS)
        if unknown:
            message = (
                f"unknown DalleBart configuration keys: {', '.join(unknown)}; known are {', '.join(sorted(fields))}"
            )
            if strict:
                raise ValueError(message)
            warnings.warn(message, stacklevel=2)
        return cls(**{name: value for name, value in values.items() if name in fields})

    @classmethod
    def from_file(cls, path: str | Path) -> "DalleBartConfig":
        """A configuration from a ``config.json``; unknown keys warn.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a JSON object, or a value in it is refused; the message names the file.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise TypeError(f"holds a {type(values).__name__} where an object was expected")
            return cls.from_dict(values, strict=False)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """All fields with ``model_type``, ready for ``config.json``."""
        return {"model_type": "dallebart", **dataclasses.asdict(self)}

    def _check_numbers(self) -> None:
        sizes = (
            "encoder_vocab_size image_vocab_size image_length max_text_length d_model encoder_layers decoder_layers "
            "encoder_ffn_dim decoder_ffn_dim encoder_attention_heads decoder_attention_heads sinkhorn_iters"
        )
        for name in sizes.split():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {value!r}")
        for name in ("init_std", "tau_init"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % getattr(self, name):
                raise ValueError(f"{name} ({getattr(self, name)}) must divide d_model ({self.d_model})")
        if not 1 <= self.decoder_start_token_id <= self.image_vocab_size:
            raise ValueError(
                f"decoder_start_token_id must lie in [1, image_vocab_size = {self.image_vocab_size}], the rows of the "
                f"decoder's table, got {self.decoder_start_token_id}"
            )

    def _check_variants(self) -> None:
        one_of = {
            "activation_function": ACTIVATIONS,
            "ln_type": LN_TYPES,
            "ln_positions": LN_POSITIONS,
            "is_encoder_decoder": (True,),
            "use_alibi": (False,),
            "encoder_layerdrop": (0.0,),
            "decoder_layerdrop": (0.0,),
        }
        for name, allowed in one_of.items():
            if getattr(self, name) not in allowed:
                choices = " or ".join(repr(value) for value in allowed)
                raise ValueError(f"{name}={getattr(self, name)!r} is not built here; it must be {choices}")
        for name in ("use_final_ln_encoder", "use_final_ln_decoder"):
            if self.ln_positions == "postln" and not getattr(self, name):
                raise ValueError(f"{name} must be True with ln_positions='postln', whose layers all end in a norm")
        if self.use_scan and self.ln_positions == "swinv2":
            raise ValueError("use_scan must be False with ln_positions='swinv2', whose layers differ")
