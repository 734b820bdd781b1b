"""Names on the Hugging Face Hub to folders on disk: fetched once, then read from the cache, with or without a network.

`huggingface_hub` does the work, resumes what was interrupted, and obeys `HF_HOME` and `HF_HUB_OFFLINE`.
"""

import re
from pathlib import Path, PurePosixPath

# A repository; of min-dalle's files the encoder's name says which of two models is meant.
HUB_NAME = re.compile(
    r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(/(?P<encoder>encoder(?P<size>_mini)?\.pt))?(@(?P<revision>[\w./-]+))?"
)
TOKENIZER = ["tokenizer.json", "vocab.json", "merges.txt"]
DALLEBART = [*TOKENIZER, "enwiki-words-frequency.txt", "sampling.json"]
OURS = [f"{part}/{name}" for part in ("vqgan", "clip") for name in ("config.json", "model.safetensors")]
# What is fetched of each kind of repository, and under which names its weights may lie, the preferred one first;
# the config.json beside them is fetched too.
FILES = {
    "dallebart": DALLEBART,
    "pipeline": [*DALLEBART, *OURS, "config_mini.json"],
    "vqgan": [],
    "clip": ["preprocessor_config.json", *TOKENIZER],
    "bart": TOKENIZER,
}
WEIGHTS = {
    "dallebart": ["flax_model.msgpack"],
    "pipeline": ["flax_model.msgpack", "bart/model.safetensors"],
    "vqgan": ["flax_model.msgpack", "model.safetensors", "vqgan/model.safetensors", "detoker.pt"],
    "clip": ["model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "clip/model.safetensors"],
    "bart": ["model.safetensors", "pytorch_model.bin", "flax_model.msgpack"],
}


def local_path(name: str | Path, kind: str, *, revision: str | None = None, cached_only: bool = False) -> Path:
    """The folder or file of a checkpoint: `name` itself where it exists, otherwise a Hub repository's files.

    Args:
        name: a path; or, as a string, a Hub name such as "dalle-mini/dalle-mini" or "dalle-mini/dalle-mini@revision";
            of min-dalle's files with the encoder, as "kuprel/min-dalle/encoder_mini.pt", and with any revision at the end.
        kind: "dallebart", "vqgan", "clip", "pipeline" (a DalleBart with what lies beside it, the original's or ours),
            "bart" or "min-dalle": which files are needed.
        revision: branch, tag or commit on the Hub; None takes what stands in the name, or the main branch.
        cached_only: use no network.

    Returns:
        A path; one that neither exists nor looks like a Hub name is given back as it is, for the loader to refuse.

    Raises:
        FileNotFoundError: the Hub has no such repository or revision, or it cannot be reached and nothing is cached, or
            the repository has no weights of this kind. ValueError: it holds several models and none was chosen.
        ImportError: `huggingface_hub` is not installed.
    """
    found = HUB_NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None or Path(name).exists():
        return Path(name)
    repository, revision = found["repository"], revision or found["revision"]
    at = f"@{revision}" if revision else ""
    choice = f"{repository}/encoder_mini.pt{at} (mini) or {repository}/encoder.pt{at} (mega)"
    if found["encoder"] and kind in ("pipeline", "min-dalle"):
        return _min_dalle(repository, revision, found["encoder"], found["size"] or "", cached_only)
    if kind == "min-dalle":
        raise ValueError(f"{name} does not say which of min-dalle's models is meant; give {choice}")
    for weights in WEIGHTS[kind]:
        files = [*FILES[kind], str(PurePosixPath(weights).with_name("config.json")), weights]
        folder = _snapshot(repository, revision, files, cached_only)
        if (folder / weights).is_file():
            return folder
    if kind == "pipeline" and (folder / "config_mini.json").is_file():
        raise ValueError(f"{name} holds several models of min-dalle; give {choice}")
    raise FileNotFoundError(
        f"{name} has no {' or '.join(WEIGHTS[kind])}, here in {folder}: either its download was interrupted, then "
        f"connect to the network and try again, or it is no {kind} checkpoint"
    )


def _min_dalle(repository: str, revision: str | None, encoder: str, size: str, cached_only: bool) -> Path:
    names = [encoder, f"decoder{size}.pt", f"config{size}.json", f"vocab{size}.json", f"merges{size}.txt"]
    folder = _snapshot(repository, revision, [*names, "detoker.pt", "sampling.json"], cached_only)
    if not (folder / encoder).is_file():
        raise FileNotFoundError(
            f"{repository} has no {encoder}, here in {folder}: either its download was interrupted, then connect to the "
            "network and try again, or it does not hold min-dalle's files"
        )
    return folder / encoder


def _snapshot(repository: str, revision: str | None, files: list[str], cached_only: bool) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise ImportError(
            f"there is no folder {repository}, and to fetch it from the Hub the library huggingface_hub is needed: "
            "pip install minidalle[hub]"
        ) from error
    # Said here too, since huggingface_hub 1.x fails where HF_HUB_OFFLINE is set instead of taking what is cached.
    offline = cached_only or constants.HF_HUB_OFFLINE
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision, allow_patterns=files, local_files_only=offline
            )
        )
    except errors.GatedRepoError as error:
        raise FileNotFoundError(
            f"{repository} asks for an agreement: accept it at https://huggingface.co/{repository}, then log in (hf auth login)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder {repository}, and the Hub has no repository of this name that you may read; check the "
            "spelling, or log in (hf auth login) if it is private"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{repository} has no revision {revision} on the Hub; leave it out for the newest, or give a branch, tag or commit"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        way = "and is not to be fetched now: run `minidalle generate` with it once" if cached_only else (
            "and the Hub cannot be reached: connect to the network (and unset HF_HUB_OFFLINE), or give a folder"
        )  # fmt: skip
        at = f" at revision {revision}" if revision else ""
        raise FileNotFoundError(f"{repository}{at} is neither a folder nor wholly in the Hub's cache, {way}") from error
    except Exception as error:  # proxies, certificates, servers, full disks: each version raises kinds of its own
        raise OSError(f"{repository} cannot be fetched from the Hub: {_first_line(error)}; try again later") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
