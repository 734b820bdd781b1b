"""The command line: what it writes, what it prints, and how it fails."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from minidalle.cli import main
from minidalle.data.encoded import Encoded
from minidalle.pipeline import Pipeline

COMMANDS = ("generate", "rank", "search", "encode", "train", "evaluate", "convert", "estimate", "info")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_text_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "-h"])
    assert stop.value.code == 0
    assert f"example: minidalle {command}" in capsys.readouterr().out


def test_generate_writes_a_sheet_and_reports_as_json(folder, tmp_path, capsys):
    out = tmp_path / "cat.png"
    assert (
        main(["generate", "cat", "-n", "3", "--model", str(folder), "--out", str(out), "--scale", "1", "--json"]) == 0
    )
    result = json.loads(capsys.readouterr().out)["results"][0]
    assert result["caption"] == "cat" and result["file"] == str(out)
    assert result["scores"] == sorted(result["scores"], reverse=True) and len(result["order"]) == 3
    with Image.open(out) as sheet:
        assert sheet.size == (3 * 8 + 2 * 2, 8)


def test_generate_names_files_after_captions(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    generate, settings = Pipeline.generate, {}
    monkeypatch.setattr(
        Pipeline, "generate", lambda *prompts, **given: settings.update(given) or generate(*prompts, **given)
    )
    assert main(["generate", "a red heart", "cat", "-n", "1", "--model", str(folder), "--no-rank", "--int8"]) == 0
    assert settings["int8"] is True and settings["rank"] is False
    assert {path.name for path in tmp_path.iterdir()} == {"a-red-heart.png", "cat.png"}
    assert "a-red-heart.png" in capsys.readouterr().out


def test_rank_and_search_agree(folder, tmp_path, capsys):
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    files = [str(tmp_path / f"{index}.png") for index in range(3)]
    assert main(["rank", "cat", *files, "--model", str(folder), "--json"]) == 0
    ranked = json.loads(capsys.readouterr().out)
    assert main(["search", "cat", str(tmp_path), "--model", str(folder), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == ranked and len(ranked) == 3
    assert "broken.png left out" in printed.err


def test_encode_keeps_captions_and_names_what_is_broken(folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("one", "two"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (20, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{name}.png")
        (photos / f"{name}.txt").write_text(f"picture {name}")
    (photos / "bad.png").write_bytes(b"nothing")
    (photos / "bad.txt").write_text("a caption")
    assert main(["encode", str(photos), "--out", str(tmp_path / "codes"), "--model", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 2
    encoded = Encoded.load(tmp_path / "codes")
    assert encoded.codes.shape == (2, 16) and sorted(encoded.captions) == ["picture one", "picture two"]
    assert "bad" in (tmp_path / "codes" / "report.txt").read_text()


def test_info_counts_without_loading_weights(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it would fail
    assert main(["info", str(folder), "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert set(parts) == {"vqgan", "bart", "clip"}
    assert parts["bart"]["bytes"] == 2 * parts["bart"]["parameters"] and parts["bart"]["types"] == ["F16"]
    assert parts["vqgan"]["config"]["n_embed"] == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "cat", "--model", "nowhere"], "no checkpoint 'nowhere'"),
        (["generate", "cat", "-n", "0"], "at least 1; got 0"),
        (["generate", "cat", "--temperature", "-1"], "temperature must be"),
        (["generate", "cat", "--out", "/proc/nothing/cat.png"], "cannot write"),
        (["generate", "cat", "--out", "cat.xyz"], "does not end like a picture"),
        (["train", "missing.toml"], "no recipe at missing.toml"),
        (["search", "cat", "nowhere"], "no folder nowhere"),
        (["info", "nowhere"], "no checkpoint 'nowhere'"),
    ],
)
def test_mistakes_end_in_one_sentence_and_status_1(folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    if "--model" not in arguments and arguments[0] in ("generate", "search"):
        arguments = [*arguments, "--model", str(folder)]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == [], "something was left half-written"


def test_an_unknown_command_is_wrong_usage():
    with pytest.raises(SystemExit) as stop:
        main(["paint"])
    assert stop.value.code == 2


def test_importing_the_package_starts_neither_jax_nor_torch():
    code = "import sys, minidalle; print('jax' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["False", "False"]
