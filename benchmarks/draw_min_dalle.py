"""min-dalle as a contestant, by its own `MinDalle`, whose downloads are replaced by files and its tokenizer by given ids.

Runs in an environment of its own, with min-dalle and without minidalle. `python -m benchmarks.draw_min_dalle FOLDER SIZE
DTYPE DEVICE`: the folder holds `encoder.pt`, `decoder.pt` and `detoker.pt`.
"""

import platform
import sys
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from benchmarks.clock import now
from benchmarks.processes import serve

warnings.simplefilter("ignore")  # torch.cuda.amp.autocast, as min-dalle spells it, warns at every step
from min_dalle import MinDalle  # noqa: E402


class Given:
    """In the place of the tokenizer, whose vocabulary is a download: every caption is the one that was read last."""

    tokens: list[int]

    def tokenize(self, text: str, is_verbose: bool) -> list[int]:
        return self.tokens


class Stop(Exception):
    """Enough steps were drawn."""


class FromFiles(MinDalle):
    def __init__(self, folder: Path, size: str, dtype: str, device: str):
        self.folder = folder
        super().__init__(str(folder), getattr(torch, dtype), device, size == "mega", is_verbose=False)

    def init_tokenizer(self):
        self.tokenizer = Given()

    def init_encoder(self):
        self.encoder_params_path = str(self.folder / "encoder.pt")
        super().init_encoder()

    def init_decoder(self):
        self.decoder_params_path = str(self.folder / "decoder.pt")
        super().init_decoder()

    def init_detokenizer(self):
        self.detoker_params_path = str(self.folder / "detoker.pt")
        super().init_detokenizer()


def main(folder: Path, size: str, dtype: str, device: str) -> None:
    model = FromFiles(folder, size, dtype, device)
    sample, drawn = model.decoder.sample_tokens, {}

    def counted(*arguments, **named):
        """A step of min-dalle's own; the clock is read after the first and after the last wanted."""
        found = sample(*arguments, **named)
        drawn["steps"] += 1
        if drawn["steps"] == 1:
            drawn["first"] = now(device)
        if drawn["steps"] == drawn["wanted"]:
            drawn["last"] = now(device)
            raise Stop
        return found

    model.decoder.sample_tokens = counted

    def read(caption: list[int], pictures: int) -> None:
        model.tokenizer.tokens = caption
        drawn["pictures"] = pictures

    def draw(steps: int, guidance: float, top_k: int, seed: int) -> dict[str, float]:
        drawn.update(steps=0, wanted=steps)
        grid = round(drawn["pictures"] ** 0.5)
        start = now(device)
        try:
            next(model.generate_raw_image_stream("", seed, grid, top_k=top_k, supercondition_factor=guidance))
        except Stop:
            pass
        return {"first": drawn["first"] - start, "step": (drawn["last"] - drawn["first"]) / (steps - 1)}

    def decode(codes: list[list[int]]) -> float:
        start = now(device)
        model.image_grid_from_tokens(torch.tensor(codes, device=device), is_seamless=False).cpu().numpy()
        return now(device) - start

    def logits(file: str, caption: list[int], codes: list[int]) -> str:
        ids = torch.ones((2, model.text_token_count), dtype=torch.long, device=device)
        ids[0, 0], ids[0, 1] = caption[0], caption[-1]
        ids[1, : len(caption)] = torch.tensor(caption)
        inputs = torch.tensor([[2**14, *codes]], device=device)
        found, _ = model.decoder.forward(
            attention_mask=ids.not_equal(1)[:, None, None, :],
            encoder_state=model.encoder.forward(ids),
            attention_state=torch.zeros(model.layer_count, 1, device=device),  # only handed through
            prev_tokens=inputs,
            token_index=torch.arange(inputs.shape[1], device=device),
        )
        np.save(file, found.float().cpu().numpy())
        return file

    def about() -> dict:
        read = [*model.decoder.layers.parameters(), *model.decoder.lm_head.parameters()]
        return {
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in ("min-dalle", "torch", "numpy")},
            },
            "bytes": sum(parameter.numel() * parameter.element_size() for parameter in read),
        }

    serve({"about": about, "read": read, "draw": draw, "decode": decode, "logits": logits})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
