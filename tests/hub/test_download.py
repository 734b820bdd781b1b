"""Hub names without a network: what is asked of huggingface_hub, what lies in its cache, and what each failure says."""

import sys

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from minidalle.hub import load_clip, load_dallebart, load_vqgan
from minidalle.hub.download import local_path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub whose every repository has the files that the test puts into the folder, and that notes what it is asked."""
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns, local_files_only):
        asked.append((repository, revision, allow_patterns, local_files_only))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return tmp_path, asked


def test_only_what_is_needed_is_fetched(hub):
    folder, asked = hub
    (folder / "flax_model.msgpack").touch()
    assert local_path("dalle-mini/vqgan_imagenet_f16_16384", "vqgan") == folder
    assert asked == [("dalle-mini/vqgan_imagenet_f16_16384", None, ["config.json", "flax_model.msgpack"], False)]


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [("a/b@e93a26e", None, "e93a26e"), ("a/b", "v1", "v1"), ("a/b@main", "v2", "v2"), ("a/b", None, None)],
)
def test_a_revision_stands_in_the_name_or_beside_it(hub, name, revision, expected):
    folder, asked = hub
    (folder / "flax_model.msgpack").touch()
    local_path(name, "dallebart", revision=revision)
    assert asked[0][:2] == ("a/b", expected)


def test_the_older_weights_of_a_clip_are_fetched_where_there_are_no_newer(hub):
    folder, asked = hub
    (folder / "pytorch_model.bin").touch()
    assert local_path("openai/clip-vit-base-patch32", "clip") == folder
    assert [files[-1] for _, _, files, _ in asked] == ["model.safetensors", "pytorch_model.bin"]


def test_what_exists_on_disk_is_never_asked_for(hub, monkeypatch):
    folder, asked = hub
    (folder / "models/mini").mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert str(local_path("models/mini", "dallebart")) == "models/mini"
    assert local_path(folder / "nowhere/mini", "dallebart") == folder / "nowhere/mini" and asked == []


@pytest.mark.parametrize("load", [load_dallebart, load_vqgan, load_clip])
def test_every_loader_takes_names_and_says_what_a_repository_lacks(hub, load):
    with pytest.raises(FileNotFoundError, match="someone/something has no .*download was interrupted, then connect"):
        load("someone/something", revision="v1")
    assert hub[1][0][1] == "v1"


def made(kind, message):
    """An error of huggingface_hub without the HTTP response that its constructor wants, which changes with versions."""
    error = kind.__new__(kind)
    error.args = (message,)
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            made(errors.RepositoryNotFoundError, "404"),
            FileNotFoundError,
            "no repository of this name",
        ),
        (made(errors.GatedRepoError, "403"), FileNotFoundError, "asks for an agreement"),
        (made(errors.RevisionNotFoundError, "404"), FileNotFoundError, "has no revision v9"),
        (errors.LocalEntryNotFoundError("nothing"), FileNotFoundError, "Hub cannot be reached: connect to the network"),
        (
            made(errors.HfHubHTTPError, "500 oh\nno"),
            OSError,
            "fetched from the Hub: 500 oh; try again",
        ),
    ],
)
def test_each_failure_is_one_sentence_that_says_what_to_do(monkeypatch, error, kind, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(kind, match=message) as raised:
        local_path("a/b@v9", "vqgan")
    assert "\n" not in str(raised.value)


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install minidalle\[hub\]"):
        local_path("a/b", "vqgan")


def test_a_cached_repository_is_found_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--a--b"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "flax_model.msgpack").touch()
    for name in ("a/b", "a/b@main", f"a/b@{COMMIT}"):
        assert local_path(name, "vqgan") == snapshot
        assert local_path(name, "vqgan", cached_only=True) == snapshot
    with pytest.raises(FileNotFoundError, match="a/b at revision v2 is neither .* unset HF_HUB_OFFLINE"):
        local_path("a/b@v2", "vqgan")
    with pytest.raises(FileNotFoundError, match="run `minidalle generate` with it once"):
        local_path("a/c", "vqgan", cached_only=True)
