"""CLIP's sizes, in the fields and the nesting of a Hugging Face `config.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh")

# What transformers writes into every config beside the architecture: bookkeeping, settings of text generation and of
# training. None of it changes what CLIP computes.
HARMLESS = frozenset(
    """_attn_implementation_autoset _commit_hash _name_or_path add_cross_attention architectures auto_map bad_words_ids
    begin_suppress_tokens chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dropout dtype early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing
    id2label initializer_range is_decoder is_encoder_decoder label2id length_penalty max_length min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states
    output_scores prefix problem_type pruned_heads remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version
    typical_p use_bfloat16 use_return_dict""".split()
)


@dataclass(frozen=True)
class CLIPTextConfig:
    """The text transformer. `pooling` is which token stands for the caption: the first `eos_token_id` ("eos"), or the
    largest id ("argmax"), which transformers takes for configs with the old `eos_token_id` of 2.
    """

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    initializer_factor: float = 1.0
    bos_token_id: int = 49406
    eos_token_id: int = 49407
    pad_token_id: int = 1
    pooling: Literal["eos", "argmax"] = "eos"

    def __post_init__(self) -> None:
        _check_transformer(self, "text_config")
        if self.pooling not in ("eos", "argmax"):
            raise ValueError(f'text_config pooling is {self.pooling!r}; expected "eos" or "argmax"')
        if self.vocab_size < 1 or self.max_position_embeddings < 2:
            raise ValueError("text_config needs a vocab_size of 1 or more and max_position_embeddings of 2 or more")


@dataclass(frozen=True)
class CLIPVisionConfig:
    """The vision transformer. Pictures are brought to `image_size` pixels, then to `(x − image_mean) / image_std`."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    initializer_factor: float = 1.0
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        _check_transformer(self, "vision_config")
        if self.num_channels != 3:
            raise ValueError(f"vision_config num_channels is {self.num_channels}; only RGB pictures (3) are supported")
        if self.patch_size < 1 or self.image_size < 1 or self.image_size % self.patch_size:
            raise ValueError(
                f"vision_config image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        for name in ("image_mean", "image_std"):
            numbers = tuple(float(x) for x in getattr(self, name))
            if len(numbers) != 3 or (name == "image_std" and min(numbers) <= 0):
                raise ValueError(f"vision_config {name} is {numbers}; expected three numbers, positive for image_std")
            object.__setattr__(self, name, numbers)

    @property
    def patches(self) -> int:
        """How many patches a picture is cut into."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class CLIPConfig:
    """Both towers, and the size of the space where they meet (Radford et al. 2021).

    The defaults are those of openai/clip-vit-base-patch32. `logit_scale_init_value` is the logarithm of the initial
    scale 1 / 0.07.
    """

    text_config: CLIPTextConfig = field(default_factory=CLIPTextConfig)
    vision_config: CLIPVisionConfig = field(default_factory=CLIPVisionConfig)
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592
    initializer_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.projection_dim < 1:
            raise ValueError(f"projection_dim is {self.projection_dim}; expected 1 or more")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CLIPConfig":
        """Read a `config.json` of transformers, or of `to_dict`.

        What transformers writes that does not concern the architecture is passed over. Raises ValueError for any other
        unknown key and for settings that this model does not have (dropout in the attention).
        """
        values = dict(values)
        parts = {}
        for name, part in (("text_config", CLIPTextConfig), ("vision_config", CLIPVisionConfig)):
            # Old files say everything twice, and there the `_dict` is what transformers believes.
            given = {**(values.pop(name, None) or {}), **(values.pop(f"{name}_dict", None) or {})}
            given.pop(
                "projection_dim", None
            )  # used by the one-tower classes of transformers; here the outer one counts
            if given.pop("attention_dropout", 0.0):
                raise ValueError(f"{name} sets attention_dropout; this CLIP has none, so set it to 0.0")
            if part is CLIPTextConfig and "pooling" not in given:
                given["pooling"] = "argmax" if given.get("eos_token_id") == 2 else "eos"
            if part is CLIPVisionConfig:
                given = {k: v for k, v in given.items() if k not in ("bos_token_id", "eos_token_id", "pad_token_id")}
            parts[name] = part(**_known(given, part, name))
        return cls(**parts, **_known(values, cls, "the CLIP config"))

    def to_dict(self) -> dict[str, Any]:
        """The config as plain values, as `from_dict` and transformers read it."""
        values = asdict(self)
        values["vision_config"] |= {k: list(values["vision_config"][k]) for k in ("image_mean", "image_std")}
        return {"architectures": ["CLIPModel"], "model_type": "clip", **values}


def _known(values: Mapping[str, Any], part: type, where: str) -> dict[str, Any]:
    names = {f.name for f in fields(part)}
    unknown = sorted(values.keys() - names - HARMLESS)
    if unknown:
        raise ValueError(f"{where} has unknown keys {', '.join(unknown)}; is this the config of a CLIP model?")
    return {name: value for name, value in values.items() if name in names}


def _check_transformer(config: CLIPTextConfig | CLIPVisionConfig, where: str) -> None:
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        if getattr(config, name) < 1:
            raise ValueError(f"{where} {name} is {getattr(config, name)}; expected 1 or more")
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"{where} hidden_size {config.hidden_size} is not a multiple of num_attention_heads "
            f"{config.num_attention_heads}"
        )
    if config.hidden_act not in ACTIVATIONS:
        raise ValueError(f"{where} hidden_act is {config.hidden_act!r}; expected one of {', '.join(ACTIVATIONS)}")
