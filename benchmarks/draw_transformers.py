"""transformers' BART as a contestant: codes drawn by its own `generate`, from a BART as large as a DalleBart.

It has no guidance for networks with an encoder: captions stand twice in the batch, so that as many rows are computed, and the
twin draws codes of its own. It has no picture decoder either. `python -m benchmarks.draw_transformers SIZE DTYPE DEVICE`.
"""

import sys
from typing import Any

import torch
import transformers

from benchmarks.clock import now
from benchmarks.processes import serve
from benchmarks.report import versions
from benchmarks.weights import SIZES
from minidalle.bart import DalleBartConfig


def main(size: str, dtype: str, device: str) -> None:
    config = DalleBartConfig(**SIZES[size][0])
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.BartForConditionalGeneration(as_large_as(config)).to(getattr(torch, dtype)).eval()
    given: dict[str, Any] = {}

    def read(caption: list[int], pictures: int) -> None:
        ids = torch.full((2 * pictures, config.max_text_length), 1, device=device)
        # The table is one of codes, and may have fewer rows than one of words.
        ids[:, : len(caption)] = torch.tensor(caption, device=device) % model.config.vocab_size
        given["input_ids"], given["attention_mask"] = ids, ids.ne(1).long()

    def draw(steps: int, guidance: float, top_k: int, seed: int) -> dict[str, float]:
        """Seconds of the caption with the first step, and of a step among the later ones; no guidance is computed."""
        torch.manual_seed(seed)
        times: list[float] = []

        def watch(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            times.append(now(device))
            return logits

        start = now(device)
        length = {"min_new_tokens": steps, "max_new_tokens": steps}
        model.generate(**given, **length, do_sample=True, top_k=top_k, num_beams=1, logits_processor=[watch])
        return {"first": times[0] - start, "step": (times[-1] - times[0]) / (steps - 1)}

    def about() -> dict[str, Any]:
        cross = ".encoder_attn.k_proj.", ".encoder_attn.v_proj."
        layers = model.model.decoder.layers.named_parameters()
        read = [weight for name, weight in layers if not any(part in f".{name}" for part in cross)]
        read.append(model.lm_head.weight)
        return {
            "versions": versions("transformers", "torch"),
            "bytes": sum(weight.numel() * weight.element_size() for weight in read),
        }

    serve({"about": about, "read": read, "draw": draw})


def as_large_as(config: DalleBartConfig) -> transformers.BartConfig:
    """A BART of the same width, depth and vocabulary, whose feed-forward blocks multiply as much with two matrices as ours
    with three. BART has one table for texts and codes; the logits are of all codes.
    """
    hidden = round(config.decoder_ffn_dim * 3 / 2)
    return transformers.BartConfig(
        vocab_size=config.codebook_size + 1, d_model=config.d_model,
        max_position_embeddings=max(config.image_length + 1, config.max_text_length),
        encoder_layers=config.encoder_layers, decoder_layers=config.decoder_layers, encoder_ffn_dim=hidden,
        decoder_ffn_dim=hidden, encoder_attention_heads=config.encoder_attention_heads,
        decoder_attention_heads=config.decoder_attention_heads, dropout=0.0, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        decoder_start_token_id=config.codebook_size, forced_eos_token_id=None,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
