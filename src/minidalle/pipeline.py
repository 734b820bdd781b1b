"""The whole road: a caption goes in, ranked pictures come out.

caption → tokens → DalleBart's codes → VQGAN's pictures → CLIP's scores → best first.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from tqdm.auto import tqdm

from .bart import DalleBart, candidate_keys, sample, stream
from .bart.devices import replicate
from .clip.model import CLIP
from .clip.rank import score as clip_score
from .data.pictures import save_grid, to_uint8
from .hub.assemble import AUTO, load_parts
from .text import Tokenizer
from .vqgan.port import VQGANTwin

PATCHES = (
    1024  # codes among which a white one is looked for; drawing them costs as much as four pictures of DALL·E mini
)
ROWS = 64  # pictures that a device draws at a time; more of them are drawn in turn, with the same result


@dataclass(frozen=True)
class Candidates:
    """Several pictures of one caption, best first when they were ranked.

    Attributes:
        caption: as it was given.
        images: `(n, height, width, 3)` uint8.
        codes: `(n, code_length)` int32.
        scores: `(n,)` float32, CLIP's cosine similarity to the caption, falling; or None when not ranked.
        order: `(n,)` which draw each picture was: `order[0] == 3` says that the fourth one drawn is the best.
    """

    caption: str
    images: np.ndarray
    codes: np.ndarray
    scores: np.ndarray | None
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def save(self, path: str | Path, columns: int | None = None, scale: int = 2) -> Path:
        """Write all pictures side by side, best first; the suffix of `path` names the format. Errors as `save_grid`."""
        return save_grid(path, self.images, columns, scale=scale)


@dataclass(frozen=True)
class Step:
    """One look at a picture while it is drawn.

    Attributes:
        step: how many codes stand.
        codes: `(n, step)` int32, the codes so far.
        images: `(n, height, width, 3)` uint8; codes still to come are shown as those of a white picture.
    """

    step: int
    codes: np.ndarray
    images: np.ndarray


@dataclass(frozen=True)
class Sampling:
    """How a model is best drawn from when the caller does not say; kept with a checkpoint in `sampling.json`.

    Attributes:
        guidance: how far to go from "any caption" (0) past "this caption" (1).
        temperature: 0 takes the likeliest code, 1 samples as trained.
    """

    guidance: float = 3.0
    temperature: float = 1.0


class Pipeline:
    """Tokenizer, DalleBart, VQGAN and (optionally) CLIP that belong together; made by `Pipeline.load`.

    Args:
        tokenizer: turns captions into ids.
        bart: turns ids into codes.
        vqgan: turns codes into pictures; codes beyond its codebook, which pad some DalleBarts' tables, are never drawn.
        clip: scores pictures, or None: candidates then stay in the order in which they were drawn.
        sampling: guidance and temperature to draw with when `generate` is not told.
        clip_tokenizer: CLIP's own; None: it shares `tokenizer`.
        normalize: what is done to a caption before it is tokenized for DalleBart; None: nothing.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        bart: DalleBart,
        vqgan: VQGANTwin,
        clip: CLIP | None = None,
        sampling: Sampling = Sampling(),
        *,
        clip_tokenizer: Tokenizer | None = None,
        normalize: Callable[[str], str] | None = None,
    ):
        written, known = bart.config.codebook_size, vqgan.config.n_embed
        if written != known:
            mismatch = f"DalleBart writes {written} different codes but the VQGAN has {known}"
            if written < known:
                raise ValueError(f"{mismatch}; take two that were trained together")
            warnings.warn(f"{mismatch}; those beyond are never drawn. Were the two trained together?", stacklevel=2)
        if tokenizer.vocab_size > bart.config.encoder_vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} tokens but DalleBart reads {bart.config.encoder_vocab_size}; "
                "take two that were trained together"
            )
        self.tokenizer, self.bart, self.vqgan, self.clip, self.sampling = tokenizer, bart, vqgan, clip, sampling
        self.devices = min(replicate(bart), replicate(vqgan))
        self.clip_tokenizer, self.normalize = clip_tokenizer or tokenizer, normalize
        self.blank_ids, self.blank_mask = tokenizer.encode([""], bart.config.max_text_length)
        self._white_code: int | None = None

    @classmethod
    def load(
        cls,
        name: str | Path = "emoji",
        *,
        vqgan: str | Path = AUTO,
        clip: str | Path | None = AUTO,
        dtype: str = "float32",
    ) -> "Pipeline":
        """Load a whole pipeline: a shipped one, one of minidalle's own, or an original DALL·E mini with what belongs to it.

        Args:
            name: a shipped name; a folder; or a Hub name such as "dalle-mini/dalle-mini" or "name@revision", which is
                fetched once and then works offline. A folder of min-dalle's files is an original too; where it holds
                both mini and mega, and on the Hub, name the encoder's file: "folder/encoder_mini.pt" (mini),
                "kuprel/min-dalle/encoder.pt" (mega). Its captions are normalized as for DALL·E mini, whose weights these
                are, and not in min-dalle's shorter way.
            vqgan: path or Hub name of another VQGAN; "auto" takes the one inside a folder of minidalle's own, min-dalle's
                `detoker.pt` beside its other files, and for other originals the one that they were trained with.
            clip: the same for CLIP, "auto" being openai/clip-vit-base-patch32 for an original; None goes without one.
            dtype: "float32", "bfloat16" or "float16": what DalleBart and CLIP are kept and computed in. The VQGAN stays in
                float32, as in min-dalle: a small part of the memory, and in bfloat16 pictures would be off by up to 3 of
                255. Give `Pipeline` one of `load_vqgan(…, dtype=…)` to have it otherwise.

        Raises:
            FileNotFoundError: there is no such checkpoint, or a part of it is missing, or cannot be fetched.
            ValueError: a part is damaged, or two parts do not belong together.
            ImportError: a library that the checkpoint needs is not installed; the message says which.
        """
        parts = load_parts(name, vqgan=vqgan, clip=clip, dtype=dtype)
        return cls(**parts | {"sampling": Sampling(**parts["sampling"])})

    def generate(
        self,
        prompts: Sequence[str],
        n: int = 8,
        *,
        seed: int = 0,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        int8: bool = False,
        rank: bool = True,
        progress: bool = False,
    ) -> list[Candidates]:
        """Draw `n` pictures for each caption and rank them; several devices share the work.

        The same arguments give the same codes; a caption's pictures do not depend on the captions beside it.

        Args:
            prompts: captions; "" draws without one.
            n: candidates for each.
            seed: of the draws.
            guidance: how far to go from "any caption" (0) past "this caption" (1); see `minidalle.bart.sample`.
            temperature: 0 takes the likeliest code, 1 samples as trained. None, here and for guidance: what
                `self.sampling` says, which suits the checkpoint.
            top_k, top_p: draw only from the k likeliest codes, or from those that together reach probability p. None is
                from all; the original's `top_k=None` meant 50.
            int8: let DalleBart's steps multiply in 8 bits; see `minidalle.bart.sample`. The pictures are others, about as
                good ones for the shipped emoji model.
            rank: sort by CLIP's score, where the pipeline has a CLIP.
            progress: show a bar.

        Raises:
            ValueError: no prompts, `n` below 1, or a setting outside its range.
        """
        captions = check_prompts(prompts)
        if n < 1 or n != int(n):
            raise ValueError(f"n must be a whole number of pictures, at least 1; got {n}")
        if seed < 0 or seed != int(seed):
            raise ValueError(f"seed must be a whole number, 0 or more; got {seed}")
        text_ids, text_mask = self.read(captions)
        drawn_in_all = n * len(captions)
        # Several devices share the rows evenly, so the last caption is drawn a few times more than asked for.
        rows = np.arange(-(-drawn_in_all // self.devices) * self.devices).clip(max=drawn_in_all - 1)
        text_ids, text_mask = text_ids[rows // n], text_mask[rows // n]
        keys = candidate_keys(jax.random.key(seed), rows % n)
        settings = self._settings(guidance, temperature, top_k, top_p, int8)
        codes, images = [], []
        batch = ROWS * self.devices
        for start in tqdm(range(0, len(text_ids), batch), disable=not progress, desc="drawing", unit="batch"):
            rows = slice(start, start + batch)
            drawn = sample(
                self.bart,
                text_ids[rows],
                text_mask[rows],
                self.blank_ids,
                self.blank_mask,
                key=keys[rows],
                **settings,
            )
            codes.append(np.asarray(drawn))
            images.append(self.decode(drawn))
        codes, images = np.concatenate(codes), np.concatenate(images)
        return [
            self._candidates(prompt, images[i * n : (i + 1) * n], codes[i * n : (i + 1) * n], rank)
            for i, prompt in enumerate(captions)
        ]

    def _settings(self, guidance, temperature, top_k, top_p, int8) -> dict:
        guidance = self.sampling.guidance if guidance is None else guidance
        temperature = self.sampling.temperature if temperature is None else temperature
        settings = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p, "int8": int8}
        return settings | {"codebook_size": self.vqgan.config.n_embed}

    def read(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return what DalleBart reads of captions, `text_ids` and `text_mask`, both `(n, max_text_length)` int32.

        They are normalized where this pipeline does that, except for "", which stands for no caption at all. A caption
        that is too long is cut, with a `UserWarning` that quotes what was cut.
        """
        if self.normalize is not None:
            captions = [self.normalize(caption) if caption else "" for caption in captions]
        return self.tokenizer.encode(captions, self.bart.config.max_text_length)

    def _candidates(self, caption: str, images: np.ndarray, codes: np.ndarray, rank: bool) -> Candidates:
        if self.clip is None or not rank:
            return Candidates(caption, images, codes, None, np.arange(len(images)))
        scores = self.score(caption, images)
        order = np.argsort(-scores, kind="stable")
        return Candidates(caption, images[order], codes[order], scores[order], order)

    def stream(
        self,
        prompt: str,
        n: int = 1,
        *,
        seed: int = 0,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        int8: bool = False,
        every: int = 8,
    ) -> Iterator[Step]:
        """Yield the pictures of one caption as they appear, every `every` codes; the last are those of `generate`.

        Arguments and errors are `generate`'s; nothing is ranked.
        """
        (caption,) = check_prompts([prompt])
        text_ids, text_mask = (np.repeat(array, n, 0) for array in self.read([caption]))
        settings = self._settings(guidance, temperature, top_k, top_p, int8)
        key = jax.random.key(seed)
        steps = stream(
            self.bart, text_ids, text_mask, self.blank_ids, self.blank_mask, key=key, every=every, **settings
        )
        for step, codes in steps:
            codes = np.asarray(codes)
            whole = np.full((n, self.bart.config.image_length), self.white_code, np.int32)
            whole[:, :step] = codes
            yield Step(step, codes, self.decode(whole))

    @property
    def white_code(self) -> int:
        """The code that the VQGAN gives most often to a white picture; without an encoder, one that draws the lightest patch."""
        if self._white_code is None and self.vqgan.with_encoder:
            side = self.vqgan.config.resolution
            codes = np.asarray(self.vqgan.encode(np.ones((1, side, side, 3), np.float32)))
            self._white_code = int(np.bincount(codes.ravel()).argmax())
        elif self._white_code is None:
            some = np.unique(np.linspace(0, self.vqgan.config.n_embed - 1, PATCHES).astype(np.int32))
            patches = np.asarray(self.vqgan.decode_map(some[:, None, None]))
            self._white_code = int(some[patches.min(axis=(1, 2, 3)).argmax()])
        return self._white_code

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return the codes of pictures `(batch, H, W, 3)`, uint8 or float in [0, 1]: `(batch, code_length)` int32."""
        images = np.asarray(images)
        images = images.astype(np.float32) / 255 if images.dtype == np.uint8 else images
        return np.asarray(self.vqgan.encode(images))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the pictures of codes `(batch, code_length)`: `(batch, H, W, 3)` uint8."""
        return to_uint8(np.asarray(self.vqgan.decode(codes)))

    def score(self, caption: str, images: np.ndarray) -> np.ndarray:
        """Return how well each picture `(n, H, W, 3)` fits the caption by CLIP, `(n,)` float32; higher is better.

        Raises:
            ValueError: this pipeline has no CLIP.
        """
        if self.clip is None:
            raise ValueError("this pipeline has no CLIP, so pictures cannot be scored; call generate with rank=False")
        length = self.clip.config.text_config.max_position_embeddings
        text_ids, text_mask = self.clip_tokenizer.encode([caption], length)
        return clip_score(self.clip, images, text_ids, text_mask)[:, 0]


def check_prompts(prompts: Sequence[str]) -> list[str]:
    """Return the captions with control characters turned into spaces, after checking that they are a list of strings.

    Raises:
        ValueError: the list is empty. TypeError: it is a single string, or holds something else than strings.
    """
    if isinstance(prompts, str):
        raise TypeError(f"prompts must be a list of captions; write [{prompts[:40]!r}]")
    prompts = list(prompts)
    if not prompts:
        raise ValueError("prompts is empty; give at least one caption")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise TypeError(f"prompt {index} is a {type(prompt).__name__}, expected a string")
    return [re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", prompt).strip() for prompt in prompts]
