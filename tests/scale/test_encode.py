"""Pictures to shards of codes: the same bytes from every engine, however often the work was killed on the way."""

import functools
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minidalle.cli import main
from minidalle.data.encoded import Encoded
from minidalle.hub.assemble import load_any_vqgan
from minidalle.scale.encode import ahead, checksum, encode
from minidalle.vqgan.config import VQGANConfig
from minidalle.vqgan.export import export
from minidalle.vqgan.model import VQGAN

SIZES = {"batch_size": 4, "shard_size": 6}
BROKEN = {"07.png": b"no picture", "11.png": b""}


@pytest.fixture(scope="module")
def vqgan(tmp_path_factory) -> Path:
    """The folder of a tiny VQGAN with random weights, 8 pixels to 16 codes."""
    torch.manual_seed(0)
    config = VQGANConfig(
        ch=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), resolution=8, z_channels=8, n_embed=32,
        embed_dim=4, norm_groups=4,
    )  # fmt: skip
    network = VQGAN(config)
    torch.nn.init.normal_(network.quantize.embedding.weight)
    path = tmp_path_factory.mktemp("network") / "vqgan"
    export(network, path)
    return path


@pytest.fixture(scope="module")
def load(vqgan):
    return functools.partial(load_any_vqgan, str(vqgan))


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (9 + number % 3, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Twenty captioned pictures, of which two are broken."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(20):
        name = f"{number:02}.png"
        (folder / name).write_bytes(BROKEN.get(name, picture(number)))
        (folder / name).with_suffix(".txt").write_text(f"picture {number}")
    return folder


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> list[Path]:
    """Three WebDataset shards of different lengths; the last has no good picture."""
    folder = tmp_path_factory.mktemp("tars")
    paths = []
    for shard, count in enumerate((7, 4, 1)):
        paths.append(folder / f"{shard:02}.tar")
        with tarfile.open(paths[-1], "w") as tar:
            for number in range(count):
                content = {"png": b"broken" if shard == 2 else picture(100 * shard + number), "txt": b"a caption"}
                for suffix, data in content.items():
                    member = tarfile.TarInfo(f"{number:04}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return paths


def files(folder: Path) -> dict[str, bytes]:
    """All that was written, by name, apart from the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def expected(photos, load, tmp_path_factory) -> dict[str, bytes]:
    """What an uninterrupted run of the local engine writes."""
    out = tmp_path_factory.mktemp("expected")
    encode(photos, out, load, **SIZES)
    return files(out)


def test_codes_are_those_of_the_network_and_captions_stay_beside_them(photos, load, tmp_path):
    shards = encode(photos, tmp_path, load, **SIZES)
    assert (shards.pictures, shards.code_length, len(shards.files)) == (18, 16, 4)
    found = Encoded.load(tmp_path)
    good = [f"{number:02}.png" for number in range(20) if f"{number:02}.png" not in BROKEN]
    assert found.sources == good
    assert found.captions == [f"picture {int(name[:2])}" for name in good]
    network = load()
    for name, codes in zip(good, found.codes, strict=True):
        image = Image.open(photos / name)
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        image = np.asarray(image.resize((8, 8), Image.Resampling.LANCZOS, box=box), np.float32) / 255
        np.testing.assert_array_equal(network.encode(image[None])[0], codes)


def test_every_bad_picture_is_in_the_report(expected):
    report = expected["report.txt"].decode().splitlines()
    assert report[0] == "18 pairs read, 2 left out (2 unreadable)"
    assert [line.split(": ")[1] for line in report[1:]] == sorted(BROKEN)
    assert set(expected) == {
        *(f"{shard:05}.parquet" for shard in range(4)), "plan.jsonl", "problems/00001.jsonl", "report.txt"
    }  # fmt: skip


def test_workers_and_batches_in_memory_do_not_change_a_byte(photos, load, expected, tmp_path):
    encode(photos, tmp_path, load, **SIZES, workers=3)
    assert files(tmp_path) == expected


def test_a_killed_run_goes_on_to_the_same_bytes(photos, vqgan, load, tmp_path):
    """Killed three times, after a random number of new shards and at a random moment from then on."""
    encode(photos, tmp_path / "whole", load, batch_size=2, shard_size=1)
    command = [sys.executable, "-m", "minidalle.cli", "encode", str(photos), "--out", str(tmp_path / "killed")]
    command += ["--model", str(vqgan), "--batch-size", "2", "--shard-size", "1"]
    moments, killed = random.Random(5), 0
    shards = (tmp_path / "killed").glob
    for _ in range(3):
        target = len(list(shards("*.parquet"))) + moments.randint(1, 4)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and len(list(shards("[!.]*.parquet"))) < target:
            time.sleep(0.0005)
        time.sleep(moments.random() * 0.004)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), errors.decode()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2 and len(list(shards("[!.]*.parquet"))) < 20
    done = encode(photos, tmp_path / "killed", load, batch_size=2, shard_size=1)
    assert (done.pictures, len(done.files)) == (18, 20)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_half_written_file_is_no_shard_and_is_cleared_away(photos, load, expected, tmp_path):
    encode(photos, tmp_path, load, **SIZES)
    (tmp_path / "00002.parquet").unlink()
    (tmp_path / ".00002.parquet.0123abcd.tmp").write_bytes(b"half of it")
    encode(photos, tmp_path, load, **SIZES)
    assert files(tmp_path) == expected


def test_the_plan_holds_although_the_folder_changes(photos, load, expected, tmp_path):
    photos_now = tmp_path / "photos"
    photos_now.mkdir()
    for path in photos.iterdir():
        (photos_now / path.name).write_bytes(path.read_bytes())
    encode(photos_now, tmp_path / "codes", load, **SIZES)
    (tmp_path / "codes" / "00001.parquet").unlink()
    (photos_now / "00-new.png").write_bytes(picture(99))
    (photos_now / "00-new.txt").write_text("a new one")
    encode(photos_now, tmp_path / "codes", load, **SIZES)
    again = files(tmp_path / "codes")
    assert {name: again[name] for name in expected if name.endswith(".parquet")} == {
        name: data for name, data in expected.items() if name.endswith(".parquet")
    }


def test_other_settings_are_refused_in_a_folder_that_was_begun(photos, load, tmp_path):
    encode(photos, tmp_path, load, **SIZES)
    with pytest.raises(ValueError, match="begun with batch_size = 4, now it is 5"):
        encode(photos, tmp_path, load, batch_size=5, shard_size=6)
    other = load()
    other.quantize.embedding.embedding[...] = other.quantize.embedding.embedding[...] + 1
    with pytest.raises(ValueError, match="begun with weights"):
        encode(photos, tmp_path, lambda: other, **SIZES)
    other.decoder.conv_out.bias[...] = other.decoder.conv_out.bias[...] + 1  # codes do not depend on it
    with pytest.raises(ValueError, match="begun with pictures"):
        encode(tmp_path, tmp_path, load, **SIZES)
    (tmp_path / "plan.jsonl").unlink()
    with pytest.raises(ValueError, match="holds 00000.parquet but no plan.jsonl"):
        encode(photos, tmp_path, load, **SIZES)


def test_a_network_is_known_again_whatever_only_its_training_needed():
    one, other = load_any_vqgan("emoji"), load_any_vqgan("emoji")
    one.quantize.embed_avg[...] = one.quantize.embed_avg[...] + 1
    assert one.config.quantizer == "ema" and checksum(one) == checksum(other)


def test_tar_files_become_a_shard_each(tars, load, tmp_path):
    shards = encode(tars, tmp_path / "list", load, batch_size=4)
    assert (len(shards.files), shards.pictures) == (3, 11)
    assert [problem.source for problem in shards.problems] == ["02.tar/0000"]
    assert Encoded.load(shards.files[0]).sources == [f"00.tar/{number:04}" for number in range(7)]
    assert len(Encoded.load(shards.files[2]).codes) == 0
    for name, pictures in (("glob", tars[0].parent / "*.tar"), ("folder", tars[0].parent)):
        encode(pictures, tmp_path / name, load, batch_size=4)
        encode(pictures, tmp_path / name, load, batch_size=4)  # nothing is left to do
        assert files(tmp_path / name) == files(tmp_path / "list")


def test_pictures_without_any_captions_are_encoded_as_well(load, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    assert encode(tmp_path, tmp_path / "codes", load).problems == []
    assert Encoded.load(tmp_path / "codes").captions == ["", "", ""]


def test_nothing_to_encode_is_said(load, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing at"):
        encode(tmp_path / "nowhere", tmp_path / "codes", load)
    assert not (tmp_path / "codes").exists()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no picture of .* could be read(.|\n)*bad.png"):
        encode(tmp_path, tmp_path / "codes", load)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        encode(tmp_path, tmp_path / "codes", load, batch_size=0)


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_lives(photos, vqgan, tmp_path, capsys):
    code = "import sys, time; from minidalle.files import locked\nwith locked(sys.argv[1]): print('in', flush=True); time.sleep(600)"
    command = ["encode", str(photos), "--out", str(tmp_path / "codes"), "--model", str(vqgan)]
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "codes")], stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout.readline() == b"in\n"
            assert main(command) == 1
            assert f"process {first.pid} on " in (error := capsys.readouterr().err) and "is writing into" in error
        finally:
            first.kill()
            first.wait()
    assert (tmp_path / "codes" / ".lock").exists(), "the killed process could not tidy up"
    assert main(command) == 0


def test_items_made_ahead_keep_their_order_and_their_errors():
    assert list(ahead(iter(range(20)), depth=3)) == list(range(20))

    def failing():
        yield 1
        raise OSError("disk gone")

    taken = []
    with pytest.raises(OSError, match="disk gone"):
        taken.extend(ahead(failing()))
    made = []
    for _ in ahead(made.append(number) or number for number in range(1000)):
        break
    assert len(made) < 10, "who stops taking stops the making"


@pytest.fixture(scope="module")
def ray():
    """One session for all tests that need Ray."""
    pytest.importorskip("ray")
    from minidalle.scale.ray_engine import session

    with ExitStack() as stack:
        try:
            ray = stack.enter_context(session(None))
        except (
            OSError
        ) as error:  # Ray's parts have 15 seconds to find each other, which a busy machine may not give them
            pytest.skip(str(error))
        yield ray


def test_ray_gives_the_same_bytes_from_any_number_of_workers(ray, photos, load, expected, tmp_path):
    for workers in (1, 2):
        encode(photos, tmp_path / str(workers), load, **SIZES, engine="ray", workers=workers)
        assert files(tmp_path / str(workers)) == expected
    assert ray.is_initialized(), "a session that was there is left running"


def test_ray_goes_on_where_the_local_engine_was_stopped(ray, tars, load, tmp_path):
    encode(tars, tmp_path / "local", load, batch_size=4)
    encode(tars, tmp_path / "both", load, batch_size=4)
    for name in ("00000.parquet", "00002.parquet"):
        (tmp_path / "both" / name).unlink()
    encode(tars, tmp_path / "both", load, batch_size=4, engine="ray", workers=1)
    assert files(tmp_path / "both") == files(tmp_path / "local")


def test_more_workers_than_cores_are_refused(ray, photos, load, tmp_path):
    with pytest.raises(ValueError, match="1000 workers are more than Ray's"):
        encode(photos, tmp_path, load, **SIZES, engine="ray", workers=1000)


def test_a_worker_that_fails_ends_the_run_in_one_sentence(ray, photos, load, tmp_path):
    here = os.getpid()

    def load_here_only():
        if os.getpid() != here:
            raise RuntimeError("no such network on this machine")
        return load()

    with pytest.raises(OSError, match=r"Ray's workers failed: .*no such network on this machine"):
        encode(photos, tmp_path, load_here_only, **SIZES, engine="ray", workers=1)


def test_an_address_without_ray_is_refused(photos, load, tmp_path):
    with pytest.raises(ValueError, match="belongs to Ray"):
        encode(photos, tmp_path, load, address="auto")


def test_ray_missing_is_told_with_what_to_install(photos, load, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"minidalle\[ray\]"):
        encode(photos, tmp_path, load, **SIZES, engine="ray")


def test_the_command_tells_what_it_wrote_as_json(photos, vqgan, tmp_path, capsys):
    assert main(["encode", str(photos), "--out", str(tmp_path), "--model", str(vqgan), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pictures"], found["code_length"], found["problems"]) == (18, 16, 2)
    assert [Path(file).name for file in found["files"]] == ["00000.parquet"]
