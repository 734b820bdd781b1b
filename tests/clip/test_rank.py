"""Ranking and search, with a CLIP whose opinion is known: it judges pictures by their colour."""

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import minidalle.clip.rank as ranking
from minidalle.clip import CLIP, CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from minidalle.clip.rank import picture_files, rank, recall, score, search, zero_shot

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
CONFIG = CLIPConfig(
    CLIPTextConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=4, bos_token_id=0, eos_token_id=2,
    ),
    CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4
    ),
    projection_dim=3,
)  # fmt: skip


class ColourCLIP(CLIP):
    """Features are the mean colour of a picture, and the colour that a caption names by its second token."""

    def encode_image(self, images):
        return images.mean(axis=(1, 2))

    def encode_text(self, text_ids, text_mask=None):
        return jax.nn.one_hot(text_ids[:, 1] - 3, 3)


class Words:
    def encode(self, captions, length):
        ids = np.full((len(captions), length), 1, np.int32)
        for row, caption in enumerate(captions):
            ids[row, :3] = [0, 3 + list(COLOURS).index(caption.split()[-1]), 2]
        return ids, (ids != 1).astype(np.int32)


@pytest.fixture(scope="module")
def clip():
    return ColourCLIP(CONFIG, rngs=nnx.Rngs(0))


def plain(colour, size=8):
    return np.full((size, size, 3), colour, np.uint8)


PICTURES = np.stack([plain(c) for c in COLOURS.values()])


def test_scores_are_cosine_similarities_of_every_picture_to_every_caption(clip):
    scores = score(clip, PICTURES, *Words().encode(["red", "green", "blue", "red"], 4))
    np.testing.assert_allclose(scores, np.eye(3)[:, [0, 1, 2, 0]], atol=1e-6)
    np.testing.assert_array_equal(
        scores, score(clip, PICTURES / 255, *Words().encode(["red", "green", "blue", "red"], 4))
    )


def test_the_result_does_not_depend_on_the_batches(clip):
    pictures = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), np.uint8)
    whole = ranking.embed_images(clip, pictures, batch_size=128)
    np.testing.assert_allclose(ranking.embed_images(clip, pictures, batch_size=32), whole, atol=1e-6)
    assert whole.shape == (70, 3)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)


def test_ranking_puts_the_best_first_and_keeps_the_order_of_equals(clip):
    pictures = np.stack([plain((0, 0, 255)), plain((255, 0, 0)), plain((128, 0, 128)), plain((0, 0, 255))])
    order, scores = rank(clip, Words(), "blue", pictures)
    assert order.tolist() == [0, 3, 2, 1]
    np.testing.assert_allclose(scores, [1, 1, 0.5**0.5, 0], atol=1e-6)


def test_zero_shot_gives_probabilities_that_grow_with_the_learned_scale(clip):
    probabilities = zero_shot(clip, Words(), PICTURES, list(COLOURS), template="a photo of {}")
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    scale = np.exp(float(clip.logit_scale[...]))
    assert probabilities[0, 0] == pytest.approx(scale_share(scale), rel=1e-4)
    with pytest.raises(ValueError, match="one name or more"):
        zero_shot(clip, Words(), PICTURES, [])
    with pytest.raises(ValueError, match="template"):
        zero_shot(clip, Words(), PICTURES, ["red"], template="a photo")


def scale_share(scale):
    return np.exp(scale) / (np.exp(scale) + 2)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.fromarray(plain(colour, 20)).save(folder / f"{name}.png")
    Image.fromarray(plain((200, 0, 60), 30)).save(folder / "deep" / "reddish.JPG")
    Image.new("RGBA", (12, 30), (0, 0, 0, 0)).save(folder / "clear.png")
    Image.new("P", (9, 9)).save(folder / "palette.gif")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_search_finds_in_folders_within_folders(clip, folder):
    found = search(clip, Words(), "red", folder, n=3)
    assert [path.name for path, _ in found.matches][:2] == ["red.png", "reddish.JPG"]
    assert found.matches[0][1] == pytest.approx(1, abs=1e-5)
    assert found.unreadable == []
    clear = dict((path.name, value) for path, value in search(clip, Words(), "red", folder, n=99).matches)["clear.png"]
    assert clear == pytest.approx(3**-0.5, abs=1e-5)  # transparent is white: red, green and blue alike


def test_broken_pictures_are_reported_and_stop_nothing(clip, folder, monkeypatch):
    (folder / "cut.png").write_bytes((folder / "red.png").read_bytes()[:60])
    (folder / "text.jpg").write_text("hello")
    (folder / "empty.webp").write_bytes(b"")
    Image.fromarray(plain((255, 0, 0), 400)).save(folder / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    found = search(clip, Words(), "red", folder, n=1)
    assert [path.name for path, _ in found.matches] == ["red.png"]
    reasons = {path.name: reason for path, reason in found.unreadable}
    assert set(reasons) == {"cut.png", "text.jpg", "empty.webp", "huge.png"}
    assert "cannot identify" in reasons["text.jpg"] and "decompression bomb" in reasons["huge.png"]
    assert all(reasons.values())
    missing = search(clip, Words(), "red", [folder / "red.png", folder / "gone.png"], n=2)
    assert missing.unreadable == [(folder / "gone.png", "no such file")] and len(missing.matches) == 1


def test_a_cached_search_reads_only_what_is_new_or_changed(clip, folder, tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(
        ranking, "read_picture", lambda p, s, read=ranking.read_picture: reads.append(p.name) or read(p, s)
    )
    cache = tmp_path / "features.npz"
    first = search(clip, Words(), "red", folder, n=2, cache=cache)
    assert len(reads) == 6
    assert search(clip, Words(), "red", folder, n=2, cache=cache) == first
    assert len(reads) == 6
    Image.fromarray(plain((255, 0, 0), 21)).save(folder / "blue.png")
    changed = search(clip, Words(), "red", folder, n=2, cache=cache)
    assert reads[6:] == ["blue.png"]
    assert {path.name for path, _ in changed.matches} == {"red.png", "blue.png"}
    search(ColourCLIP(CONFIG, rngs=nnx.Rngs(1)), Words(), "red", folder, cache=cache)
    assert len(reads) == 13
    cache.write_bytes(b"broken")
    with pytest.warns(UserWarning, match="cannot be read"):
        search(clip, Words(), "red", folder, cache=cache)
    assert len(reads) == 19 and not list(tmp_path.glob("*.tmp"))


def test_bad_requests_are_named(clip, folder, tmp_path):
    with pytest.raises(ValueError, match="n is 0"):
        search(clip, Words(), "red", folder, n=0)
    with pytest.raises(FileNotFoundError, match="no folder"):
        search(clip, Words(), "red", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no pictures in"):
        picture_files([])
    with pytest.raises(ValueError, match="expected \\(number, height, width, 3\\)"):
        rank(clip, Words(), "red", PICTURES[0])
    with pytest.raises(ValueError, match="hold NaN"):
        rank(clip, Words(), "red", np.full((1, 8, 8, 3), np.nan))
    with pytest.raises(TypeError, match="list of strings"):
        ranking.embed_captions(clip, Words(), "red")


def test_broken_weights_give_an_error_and_no_ranking():
    clip = CLIP(CONFIG, rngs=nnx.Rngs(0))
    clip.visual_projection.kernel[...] = clip.visual_projection.kernel[...] * np.nan
    with pytest.raises(ValueError, match="not finite"):
        rank(clip, Words(), "red", PICTURES)


def test_recall_counts_ties_against_the_model():
    texts = np.eye(4)
    images = np.array([[1, 0, 0, 0], [1, 0.9, 0, 0], [1, 0.8, 0.7, 0], [0, 0, 1, 1]])
    found = recall(images, texts, np.arange(4), (1, 2))
    assert found["recall@1"] == 0.25 and found["recall@2"] == 0.75
    assert found["mean_reciprocal_rank"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
