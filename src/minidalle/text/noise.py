"""BART's five ways to corrupt a text that the model then restores (Lewis et al. 2020, section 2.2).

Notable:
- a text is a one-dimensional list or array of ids without `<s>`, `</s>` and padding; the corrupted text is a new int32 array;
- every function is pure: the same text and the same `random` generator state give the same result, so seed it per example,
  `np.random.default_rng([seed, step, row])`;
- DALL·E mini itself starts from scratch and uses none of these; the chapter on BART does.
"""

from collections.abc import Sequence

import numpy as np


def mask_tokens(text: Sequence[int], probability: float, mask_id: int, random: np.random.Generator) -> np.ndarray:
    """Token masking: each token becomes `mask_id` with `probability`, as in BERT; the length stays."""
    text = _checked(text, probability)
    return np.where(random.random(text.size) < probability, np.int32(mask_id), text)


def delete_tokens(text: Sequence[int], probability: float, random: np.random.Generator) -> np.ndarray:
    """Token deletion: each token is dropped with `probability`; the model must find out where something is missing."""
    text = _checked(text, probability)
    return text[random.random(text.size) >= probability]


def infill_text(
    text: Sequence[int], probability: float, mask_id: int, random: np.random.Generator, *, mean_span: float = 3.0
) -> np.ndarray:
    """Text infilling: spans of Poisson(`mean_span`) tokens each become one `mask_id`; a span of none inserts one.

    Spans are drawn until they hide the share `probability` of the tokens (rounded), the last one shortened to fit. Spans
    neither overlap nor touch while there is room, so that each keeps a mask of its own; where they fill the whole text,
    they may stand side by side. Empty spans fall at random places between tokens.
    """
    text = _checked(text, probability)
    if mean_span <= 0:
        raise ValueError(f"mean_span is {mean_span}; a mean length above 0 is needed to hide anything")
    left = round(probability * text.size)
    spans = []
    while left > 0:
        spans.append(min(int(random.poisson(mean_span)), left))
        left -= spans[-1]
    insertions = spans.count(0)
    spans = [span for span in spans if span]
    kept = text.size - sum(spans)
    # A span takes the place before the kept token of its number: distinct places keep spans apart.
    places = np.sort(random.choice(kept + 1, size=len(spans), replace=len(spans) > kept + 1))
    pieces, source, position = [], iter(text.tolist()), 0
    for place, span in zip(places.tolist(), random.permutation(spans).tolist(), strict=True):
        pieces += [next(source) for _ in range(place - position)] + [mask_id]
        for _ in range(span):
            next(source)
        position = place
    pieces += list(source)
    for _ in range(insertions):
        pieces.insert(int(random.integers(len(pieces) + 1)), mask_id)
    return np.array(pieces, dtype=np.int32)


def permute_sentences(text: Sequence[int], end_ids: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """Sentence permutation: cuts after every token in `end_ids` (full stops) and shuffles the sentences.

    What follows the last full stop counts as a sentence; the order within a sentence stays.
    """
    text = _checked(text)
    ends = np.nonzero(np.isin(text, list(end_ids)))[0] + 1
    sentences = [sentence for sentence in np.split(text, ends) if sentence.size]
    order = random.permutation(len(sentences))
    return np.concatenate([sentences[index] for index in order]) if sentences else text


def rotate_document(text: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """Document rotation: a token chosen uniformly becomes the first, what stood before it follows the end."""
    text = _checked(text)
    return np.roll(text, -int(random.integers(text.size))) if text.size else text


def _checked(text: Sequence[int], probability: float = 0.0) -> np.ndarray:
    """The text as a fresh int32 array, after its shape and the probability have been checked."""
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}; expected a number from 0 to 1")
    array = np.asarray(text)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"the text has shape {array.shape} and type {array.dtype}; expected one row of ids, without padding"
        )
    return array.astype(np.int32)
