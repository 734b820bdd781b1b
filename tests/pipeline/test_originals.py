"""The original DALL·E mini, whole, at toy size: the fixtures' DalleBart, VQGAN and CLIP behind one caption."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from minidalle.bart import sample
from minidalle.cli import main
from minidalle.hub.assemble import ORIGINAL_CLIP, ORIGINAL_VQGAN
from minidalle.pipeline import Pipeline, Sampling

FIXTURES = Path(__file__).parents[1] / "fixtures"
pytestmark = pytest.mark.filterwarnings("ignore:caption 0 is longer:UserWarning")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CAPTION = "Sunset over a lake in the mountains"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """The fixture's CLIP, which came without a tokenizer, with one of 99 tokens in the layout of OpenAI's."""
    folder = shutil.copytree(FIXTURES / "hf_clip", tmp_path_factory.mktemp("clip") / "clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map(str, range(10)), "th", "the</w>"]
    tokens += [f"filler{index}" for index in range(97 - len(tokens))] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n")
    return folder


@pytest.fixture(scope="module")
def toy(clip_folder):
    return Pipeline.load(
        FIXTURES / "dallebart_mini_scan", vqgan=FIXTURES / "vqgan_jax_basic", clip=str(clip_folder), dtype="float32"
    )


def test_a_caption_gives_ranked_pictures(toy):
    (found,) = toy.generate([CAPTION], n=4, seed=1)
    assert found.images.shape == (4, 8, 8, 3) and found.images.dtype == np.uint8 and found.codes.shape == (4, 16)
    assert (np.diff(found.scores) <= 0).all() and toy.sampling == Sampling(guidance=10.0, temperature=1.0)
    ids, mask = toy.tokenizer.encode([" sunset over a lake in the mountains"] * 4, 12)
    by_hand = sample(toy.bart, ids, mask, toy.blank_ids, toy.blank_mask, key=jax.random.key(1), guidance=10.0)
    np.testing.assert_array_equal(found.codes, np.asarray(by_hand)[found.order])
    *_, last = toy.stream(CAPTION, n=4, seed=1)
    np.testing.assert_array_equal(last.codes, by_hand)


def test_captions_are_read_as_the_original_processor_reads_them(toy):
    recorded = json.loads((FIXTURES / "dallebart_mini_scan/tokenizer_io.json").read_text())
    captions = [caption or " " for caption in recorded["captions"]]  # "" itself stands for no caption at all
    with pytest.warns(UserWarning, match="was cut before"):
        ids, mask = toy.read(captions)
    np.testing.assert_array_equal(ids, recorded["processor"]["input_ids"])
    np.testing.assert_array_equal(mask, recorded["processor"]["attention_mask"])
    for blank in (toy.read([""]), (toy.blank_ids, toy.blank_mask)):
        np.testing.assert_array_equal(blank[0], recorded["input_ids_uncond"])
        np.testing.assert_array_equal(blank[1], recorded["attention_mask_uncond"])


def test_a_long_caption_warns_with_what_was_cut(toy):
    with pytest.warns(UserWarning, match="longer than 10 tokens and was cut before '.*mountains'"):
        toy.generate([CAPTION], n=1, rank=False)


def test_the_command_tells_what_was_cut_in_one_sentence(tmp_path, capsys):
    model = ["--model", str(FIXTURES / "dallebart_mini_scan"), "--vqgan", str(FIXTURES / "vqgan_jax_basic")]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["generate", CAPTION, "-n", "1", *model, "--clip", "none", "--out", str(tmp_path / "a.png")]) == 0
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if "mountains" in line][0].startswith(
        "minidalle: caption 0 is longer than 10 tokens"
    )
    assert not any(".py" in line for line in error)


def test_the_older_tokenizer_files_do_as_well(tmp_path, toy):
    folder = shutil.copytree(FIXTURES / "dallebart_mini_scan", tmp_path / "mini")
    (folder / "tokenizer.json").unlink()
    (folder / "enwiki-words-frequency.txt").unlink()  # without the list a hashtag stays whole
    old = Pipeline.load(folder, vqgan=FIXTURES / "vqgan_jax_basic", clip=None)
    np.testing.assert_array_equal(old.read(["a cat"])[0], toy.read(["a cat"])[0])
    assert old.clip is None and old.generate(["#cat"], n=1)[0].scores is None
    assert old.normalize("#nofilterhere") == " nofilterhere"
    (folder / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match="merges.txt is missing; a tokenizer needs vocab.json and merges.txt"):
        Pipeline.load(folder, vqgan=FIXTURES / "vqgan_jax_basic", clip=None)


def test_clip_reads_captions_in_its_own_way(toy):
    ids, mask = toy.clip_tokenizer.encode(["  The  CAT"], 8)
    assert ids.tolist() == [[97, 63, 2, 0, 45, 98, 98, 98]] and mask.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]


def test_codes_beyond_the_codebook_are_never_drawn():
    with pytest.warns(
        UserWarning, match="writes 64 different codes but the VQGAN has 48; those beyond are never drawn"
    ):
        pipe = Pipeline.load(FIXTURES / "dallebart_mini_scan", vqgan=FIXTURES / "vqgan_jax_shortcut", clip=None)
    (found,) = pipe.generate(["a cat"], n=32, temperature=100.0)
    assert 40 < found.codes.max() < 48


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept_and_computed_in(dtype):
    pipe = Pipeline.load(FIXTURES / "dallebart_mini_scan", vqgan=FIXTURES / "vqgan_jax_basic", clip=None, dtype=dtype)
    assert pipe.bart.lm_head.kernel[...].dtype == dtype and pipe.bart.dtype == dtype
    assert pipe.vqgan.dtype == pipe.vqgan.param_dtype == "float32"
    assert pipe.generate(["a cat"], n=2)[0].images.shape == (2, 8, 8, 3)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"name": FIXTURES / "vqgan_jax_basic"}, ValueError, "holds one network alone .VQGAN"),
        ({"name": FIXTURES / "hf_clip"}, ValueError, r"holds one network alone \(clip\)"),
        (
            {"name": FIXTURES / "min_dalle_bart/decoder.pt"},
            ValueError,
            "half of a DalleBart of min-dalle; give its folder",
        ),
        ({"name": FIXTURES / "taming_shortcut/model.ckpt"}, ValueError, "a VQGAN in the format taming alone; give a"),
        ({"dtype": "int8"}, ValueError, "dtype is 'int8'; expected one of float32, bfloat16, float16"),
        ({"vqgan": FIXTURES / "vqgan_jax_f16"}, ValueError, "writes 64 different codes but the VQGAN has 96; take two"),
        ({"vqgan": FIXTURES / "hf_clip"}, ValueError, "is a CLIP in the format huggingface; expected a VQGAN"),
        ({"clip": FIXTURES}, FileNotFoundError, "holds no CLIP"),
    ],
)
def test_what_does_not_belong_is_refused(arguments, kind, message):
    name = arguments.pop("name", FIXTURES / "dallebart_mini_scan")
    with pytest.raises(kind, match=message):
        Pipeline.load(name, **{"vqgan": FIXTURES / "vqgan_jax_basic", "clip": None, **arguments})


def test_a_shipped_pipeline_may_go_without_its_clip(folder, clip_folder, pipe):
    assert Pipeline.load(folder, clip=None).clip is None
    other = Pipeline.load(folder, clip=clip_folder, dtype="bfloat16")
    assert other.clip_tokenizer is not other.tokenizer and other.bart.dtype == "bfloat16"
    assert other.clip.logit_scale[...].dtype == "bfloat16"
    scores = other.generate(["cat"], n=2)[0].scores
    assert scores.dtype == np.float32 and np.isfinite(scores).all()
    assert pipe.clip_tokenizer.backend.to_str() == pipe.tokenizer.backend.to_str()


def test_rank_takes_an_original_clip(clip_folder, tmp_path, capsys, toy):
    found = toy.generate(["the cat"], n=1)[0]
    path = found.save(tmp_path / "cat.png", scale=4)
    assert main(["rank", "the cat", str(path), "--model", str(clip_folder), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_hub_names_work_offline_from_the_cache(tmp_path, clip_folder):
    """The whole command in a process of its own, with nothing but HF_HOME to tell it where things lie."""
    home = tmp_path / "home"
    repositories = {
        "dalle-mini/dalle-mini": FIXTURES / "dallebart_mini_scan",
        ORIGINAL_VQGAN: FIXTURES / "vqgan_jax_basic",
        ORIGINAL_CLIP: clip_folder,
    }
    for name, source in repositories.items():
        repository = home / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(source, repository / "snapshots" / COMMIT)
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text(COMMIT)
    code = "import sys; from minidalle.cli import main; sys.exit(main(sys.argv[1:]))"
    model = ["--model", "dalle-mini/dalle-mini", "--dtype", "bfloat16"]
    command = ["generate", "a cat", "-n", "2", *model, "--out", "cat.png", "--json"]
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    options = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment}
    done = subprocess.run([sys.executable, "-c", code, *command], **options)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["results"][0]["scores"]) == 2 and (tmp_path / "cat.png").is_file()
