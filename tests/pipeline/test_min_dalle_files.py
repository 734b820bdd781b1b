"""A whole pipeline of min-dalle's files, as they lie on its users' disks and on the Hub."""

import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from minidalle.cli import main
from minidalle.hub.dallebart import load_dallebart
from minidalle.hub.info import describe
from minidalle.hub.min_dalle import load_min_dalle, save_min_dalle
from minidalle.pipeline import Pipeline, Sampling

FIXTURES = Path(__file__).parents[1] / "fixtures"
ORIGINAL = FIXTURES / "dallebart_mini_scan"
DETOKER = FIXTURES / "min_dalle_detoker/detoker.pt"


@pytest.fixture(scope="module")
def mega(tmp_path_factory):
    """The fixtures' DalleBart and detokenizer under the names of mega's files."""
    folder = tmp_path_factory.mktemp("mega")
    save_min_dalle(load_dallebart(ORIGINAL), folder)
    for file in (ORIGINAL / "vocab.json", ORIGINAL / "merges.txt", DETOKER):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def both(mega, tmp_path_factory):
    """The same with mini's files beside."""
    folder = shutil.copytree(mega, tmp_path_factory.mktemp("both") / "both")
    for name in ("encoder.pt", "decoder.pt", "config.json", "vocab.json", "merges.txt"):
        stem, _, ending = name.partition(".")
        shutil.copy(mega / name, folder / f"{stem}_mini.{ending}")
    return folder


@pytest.fixture(scope="module")
def pipe(mega):
    return Pipeline.load(mega, clip=None)


def test_it_draws_the_codes_of_the_original(pipe):
    original = Pipeline.load(ORIGINAL, vqgan=DETOKER, clip=None)
    caption = "A #Cat on the lake!"  # min-dalle itself would leave the marks in
    ours, theirs = (p.generate([caption], n=3, seed=1)[0] for p in (pipe, original))
    assert pipe.sampling == Sampling(guidance=10.0, temperature=1.0)
    np.testing.assert_array_equal(pipe.read([caption])[0], original.read([caption])[0])
    np.testing.assert_array_equal(ours.codes, theirs.codes)
    np.testing.assert_array_equal(ours.images, theirs.images)
    assert ours.images.shape == (3, 64, 64, 3)


def test_pictures_appear_although_the_detokenizer_cannot_encode_white(pipe):
    *_, last = pipe.stream("a cat", n=2, seed=3, every=8)
    np.testing.assert_array_equal(last.codes, pipe.generate(["a cat"], n=2, seed=3)[0].codes)
    patches = np.asarray(pipe.vqgan.decode_map(np.arange(64)[:, None, None])).min((1, 2, 3))
    assert patches[pipe.white_code] == patches.max()
    with pytest.raises(ValueError, match="has no encoder, it only draws"):
        pipe.encode(np.zeros((1, 64, 64, 3), np.uint8))


def test_of_mini_and_mega_one_is_chosen_by_its_encoder(both, pipe, tmp_path, capsys):
    with pytest.raises(ValueError, match="both mini and mega; give one of .*encoder_mini.pt .mini. and .*encoder.pt"):
        Pipeline.load(both, clip=None)
    for name in ("encoder_mini.pt", "encoder.pt"):
        chosen = Pipeline.load(both / name, clip=None)
        assert chosen.tokenizer.backend.to_str() == pipe.tokenizer.backend.to_str()
    told = describe(both)
    assert set(told) == {"mini", "mega", "vqgan"} and told["mini"] == told["mega"]
    out = tmp_path / "cat.png"
    command = ["generate", "cat", "-n", "1", "--model", str(both / "encoder_mini.pt"), "--clip", "none"]
    assert main([*command, "--dtype", "float16", "--out", str(out)]) == 0 and out.is_file()
    assert main(["generate", "cat", "--model", str(both), "--clip", "none", "--out", str(out)]) == 1
    assert "both mini and mega" in capsys.readouterr().err


def test_minis_tokenizer_is_never_replaced_by_megas(both, tmp_path):
    folder = shutil.copytree(both, tmp_path / "copy")
    (folder / "vocab_mini.json").unlink()
    with pytest.raises(FileNotFoundError, match="vocab_mini.json is missing; a tokenizer needs vocab_mini.json and"):
        Pipeline.load(folder / "encoder_mini.pt", clip=None)


def test_the_detokenizer_may_lie_where_min_dalle_puts_it(mega, tmp_path):
    folder = shutil.copytree(mega, tmp_path / "dalle_bart_mini")
    (folder / "detoker.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"detoker.pt is missing.*choose another VQGAN .*--vqgan"):
        Pipeline.load(folder, clip=None)
    (tmp_path / "vqgan").mkdir()
    shutil.copy(DETOKER, tmp_path / "vqgan")
    assert not Pipeline.load(folder, clip=None).vqgan.with_encoder
    assert Pipeline.load(folder, clip=None, vqgan=FIXTURES / "vqgan_jax_basic").vqgan.with_encoder


def test_info_tells_of_the_files_without_their_weights(mega, capsys):
    told, model = describe(mega), load_dallebart(ORIGINAL)
    assert told["bart"]["config"]["d_model"] == model.config.d_model and told["bart"]["types"] == ["F32"]
    assert told["vqgan"]["types"] == ["F16"] and told["vqgan"]["config"]["n_embed"] == 64
    assert main(["info", str(FIXTURES / "min_dalle_bart")]) == 0  # which says nothing of its heads
    assert "image_length: 256" in capsys.readouterr().out
    assert describe(DETOKER)["vqgan"] == told["vqgan"]


@pytest.fixture
def hub(both, tmp_path, monkeypatch):
    """A Hub of one repository, which gives the files that are asked for, and notes them."""
    asked, cache = [], tmp_path / "cache"

    def snapshot_download(repository, *, revision, allow_patterns, local_files_only):
        asked.extend(allow_patterns)
        for name in allow_patterns:
            if (source / name).is_file() and not local_files_only:
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / name, cache / name)
        return str(cache)

    source = both
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked, cache


def test_on_the_hub_the_encoder_is_named_and_only_its_model_fetched(hub):
    asked, cache = hub
    with pytest.raises(ValueError, match=r"several models .* give kuprel/min-dalle/encoder_mini.pt@main \(mini\) or "):
        Pipeline.load("kuprel/min-dalle@main", clip=None)
    assert not list(cache.glob("*.pt"))
    pipe = Pipeline.load("kuprel/min-dalle/encoder_mini.pt@main", clip=None)
    assert sorted(file.name for file in cache.glob("*.pt")) == ["decoder_mini.pt", "detoker.pt", "encoder_mini.pt"]
    assert pipe.generate(["cat"], n=1)[0].images.shape == (1, 64, 64, 3)
    assert load_min_dalle("kuprel/min-dalle/encoder_mini.pt").config == pipe.bart.config
    with pytest.raises(ValueError, match="does not say which of min-dalle's models"):
        load_min_dalle("kuprel/min-dalle")


def test_a_pipeline_of_our_own_is_fetched_by_its_name(folder, tmp_path, monkeypatch, pipe):
    def snapshot_download(repository, *, revision, allow_patterns, local_files_only):
        for name in allow_patterns:
            if (folder / name).is_file():
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / name, tmp_path / name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    fetched = Pipeline.load("someone/toy")
    assert fetched.generate(["cat"], n=2)[0].scores is not None
    assert set(describe("someone/toy")) == {"vqgan", "bart", "clip"}
    assert Pipeline.load(folder, vqgan="someone/toy", clip="someone/toy").clip is not None
