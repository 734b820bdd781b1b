"""The command `minidalle`. Results go to standard output, everything else to standard error; errors are one sentence."""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__

KNOWN_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 after an error, 2 for wrong usage, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return options.run(options) or 0
    except KeyboardInterrupt as stop:
        print(f"minidalle: stopped{f': {stop}' if str(stop) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except KNOWN_ERRORS as error:
        print(f"minidalle: {error}", file=sys.stderr)
        return 1


def _show_warning(message: Warning | str, *_: Any) -> None:
    """A warning as one sentence, without the line of code that it came from."""
    print(f"minidalle: {message}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="minidalle", description="Captions to ranked pictures: DALL·E mini, step by step."
    )
    top.add_argument("--version", action="version", version=f"minidalle {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    command = _add(
        commands,
        "generate",
        generate,
        "draw pictures for captions and rank them",
        'minidalle generate "woman astronaut: medium skin tone" -n 8 --out astronaut.png',
    )
    command.add_argument(
        "prompts", nargs="+", metavar="CAPTION", help="what to draw; several captions give several files"
    )
    command.add_argument("-n", type=int, default=8, help="candidates for each caption (default 8)")
    command.add_argument("--out", type=Path, help="picture file to write (default: the caption, as .png)")
    command.add_argument(
        "--model",
        default="emoji",
        help="shipped checkpoint, folder, or Hub name as dalle-mini/dalle-mini; of min-dalle's files the encoder chooses "
        "mini or mega, as kuprel/min-dalle/encoder_mini.pt (default emoji)",
    )
    command.add_argument(
        "--vqgan", default="auto", help="another VQGAN: folder, file or Hub name (default: the model's own)"
    )
    command.add_argument("--clip", default="auto", help="another CLIP: folder or Hub name; none goes without")
    command.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="what DalleBart and CLIP compute in (default float32)",
    )
    command.add_argument("--seed", type=int, default=0, help="same seed, same pictures (default 0)")
    suits = "(default: what suits the checkpoint)"
    command.add_argument("--guidance", type=float, help=f"1 is the model as trained, more stresses the caption {suits}")
    command.add_argument("--temperature", type=float, help=f"0 is the likeliest code, 1 the model as trained {suits}")
    command.add_argument(
        "--top-k", type=int, help="draw from the k likeliest codes only (default: from all; the original took 50)"
    )
    command.add_argument("--top-p", type=float, help="draw from the likeliest codes that reach this probability")
    command.add_argument(
        "--int8", action="store_true", help="multiply in 8 bits while drawing: faster on many CPUs, other pictures"
    )
    command.add_argument("--scale", type=int, default=2, help="each pixel becomes a square of so many (default 2)")
    command.add_argument("--no-rank", action="store_true", help="keep the order of drawing")
    _json(command)

    command = _add(
        commands, "rank", rank, "order pictures by how well they fit a caption", 'minidalle rank "a red heart" *.png'
    )
    command.add_argument("caption", metavar="CAPTION")
    command.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    command.add_argument(
        "--model", default="emoji", help="whose CLIP judges: shipped, folder or Hub name (default emoji)"
    )
    _json(command)

    command = _add(
        commands,
        "search",
        search,
        "find the pictures of a folder that fit a caption",
        'minidalle search "a red heart" photos/',
    )
    command.add_argument("caption", metavar="CAPTION")
    command.add_argument("folder", type=Path, metavar="FOLDER")
    command.add_argument("-n", type=int, default=8, help="how many to show (default 8)")
    command.add_argument("--cache", type=Path, help=".npz file that keeps the features between searches")
    command.add_argument(
        "--model", default="emoji", help="whose CLIP searches: shipped, folder or Hub name (default emoji)"
    )
    _json(command)

    command = _add(commands, "encode", encode, "turn pictures into codes", "minidalle encode photos/ --out codes/")
    command.add_argument(
        "pictures", type=Path, metavar="FOLDER", help="pictures, with captions (as .txt, CSV, JSONL, COCO) or without"
    )
    command.add_argument("--out", type=Path, required=True, help="folder for codes.npz and report.txt")
    command.add_argument(
        "--model", default="emoji", help="whose VQGAN encodes: shipped, folder, file or Hub name (default emoji)"
    )
    _json(command)

    command = _add(
        commands, "train", train, "train what a recipe describes", "minidalle train recipes/emoji/vqgan.toml"
    )
    command.add_argument("recipe", type=Path, metavar="RECIPE")
    command.add_argument("--run-dir", type=Path, help="folder for log and checkpoints (default runs/<name>/<kind>)")
    command.add_argument("--fresh", action="store_true", help="start anew instead of going on from the last checkpoint")
    command.add_argument(
        "--distributed",
        action="store_true",
        help="join the other processes that train this; see minidalle.scale.distributed",
    )

    command = _add(
        commands, "evaluate", evaluate, "compute every number of a model card", "minidalle evaluate emoji --json"
    )
    command.add_argument("model", metavar="CHECKPOINT", help="a shipped checkpoint or a folder")
    command.add_argument("--seen", type=int, help="training captions to draw, chosen by the seed (default: all)")
    command.add_argument("--seed", type=int, default=0)
    _json(command)

    command = _add(
        commands,
        "convert",
        convert,
        "write a checkpoint in another format",
        "minidalle convert emoji emoji-original --to dalle-mini",
    )
    command.add_argument("source", type=Path, metavar="SOURCE", help="a checkpoint's folder or file, or a shipped name")
    command.add_argument("target", type=Path, metavar="TARGET", help="a new folder; for taming a new .ckpt file")
    formats = ("minidalle", "dalle-mini", "min-dalle", "vqgan-jax", "taming", "huggingface")
    command.add_argument("--to", required=True, choices=formats, help="the format to write")
    command.add_argument("--heads", type=int, help="attention heads, which min-dalle's files do not tell")
    _json(command)

    command = _add(
        commands, "info", info, "show configuration, parameters and memory of a checkpoint", "minidalle info emoji"
    )
    command.add_argument(
        "model", metavar="CHECKPOINT", help="a shipped checkpoint, a folder, or a Hub name in the cache"
    )
    _json(command)
    return top


def _add(commands: Any, name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"example: {example}"
    )
    command.set_defaults(run=run)
    return command


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the result as JSON, for programs")


def generate(options: argparse.Namespace) -> None:
    """`minidalle generate`: one contact sheet per caption, best first."""
    paths = _outputs(options.prompts, options.out)
    for path in paths:
        _check_writable(path)
    from .pipeline import Pipeline

    started = time.perf_counter()
    clip = None if options.clip == "none" else options.clip
    pipe = Pipeline.load(options.model, vqgan=options.vqgan, clip=clip, dtype=options.dtype)
    found = pipe.generate(
        options.prompts,
        options.n,
        seed=options.seed,
        guidance=options.guidance,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        int8=options.int8,
        rank=not options.no_rank,
        progress=sys.stderr.isatty(),
    )
    seconds = time.perf_counter() - started
    results = []
    for candidates, path in zip(found, paths, strict=True):
        candidates.save(path, scale=options.scale)
        scores = None if candidates.scores is None else [round(float(score), 4) for score in candidates.scores]
        results.append(
            {"caption": candidates.caption, "file": str(path), "scores": scores, "order": candidates.order.tolist()}
        )
    if options.json:
        print(json.dumps({"seed": options.seed, "seconds": round(seconds, 2), "results": results}))
    else:
        for result in results:
            best = "" if result["scores"] is None else f", best score {result['scores'][0]:.3f}"
            print(f"{result['file']}: {options.n} × {result['caption']!r}{best}")


def _outputs(prompts: Sequence[str], out: Path | None) -> list[Path]:
    """The file of each caption: `--out`, numbered when there are several captions, or the caption itself."""
    if out is not None:
        return [out] if len(prompts) == 1 else [out.with_stem(f"{out.stem}-{index}") for index in range(len(prompts))]
    names = [
        "".join(c if c.isalnum() else "-" for c in prompt.lower()).strip("-")[:60] or "picture" for prompt in prompts
    ]
    return [
        Path(f"{name}.png" if names.count(name) == 1 else f"{name}-{index}.png") for index, name in enumerate(names)
    ]


def _check_writable(path: Path) -> None:
    """Find out before minutes of work whether the result can be written."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder or lies inside a file; give a file name such as cat.png")
    try:
        probe = folder / f".minidalle-{time.time_ns()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write into {folder}: {error.strerror}; choose another place with --out") from error


def rank(options: argparse.Namespace) -> None:
    """`minidalle rank`: pictures by falling score."""
    _find(options, options.pictures, len(options.pictures))


def search(options: argparse.Namespace) -> None:
    """`minidalle search`: the best pictures of a folder."""
    _find(options, options.folder, options.n)


def _find(options: argparse.Namespace, pictures: Any, n: int) -> None:
    from .clip.rank import search as clip_search
    from .hub.assemble import load_judge

    clip, tokenizer = load_judge(options.model)
    cache = getattr(options, "cache", None)
    found = clip_search(clip, tokenizer, options.caption, pictures, n, cache=cache, progress=sys.stderr.isatty())
    for path, reason in found.unreadable:
        print(f"minidalle: {path} left out: {reason}", file=sys.stderr)
    if not found.matches:
        raise ValueError("none of the pictures could be read")
    if options.json:
        print(json.dumps([{"file": str(path), "score": round(score, 4)} for path, score in found.matches]))
    else:
        for path, score in found.matches:
            print(f"{score:.3f}  {path}")


def encode(options: argparse.Namespace) -> None:
    """`minidalle encode`: `codes.npz` and a report of what could not be read."""
    import numpy as np
    from tqdm.auto import tqdm

    from .clip.rank import picture_files, read_picture
    from .data.encoded import Encoded
    from .data.pairs import load_pairs
    from .hub.assemble import load_any_vqgan

    _check_writable(options.out / "codes.npz")
    vqgan = load_any_vqgan(options.model)
    size = vqgan.config.resolution
    pairs = load_pairs(options.pictures, size=size)
    triples = [(pair.image, pair.caption, pair.source) for pair in tqdm(pairs, desc="reading", unit="picture")]
    report = str(pairs.report)
    if not triples:
        triples, problems = [], []
        for path in picture_files(options.pictures):
            try:
                triples.append((read_picture(path, size), "", str(path)))
            except ValueError as error:
                problems.append(f"  {path}: {error}")
        report = "\n".join([f"{len(triples)} pictures read without captions, {len(problems)} left out", *problems])
    if not triples:
        raise ValueError(f"no picture in {options.pictures} could be read:\n{report}")
    images, captions, sources = zip(*triples, strict=True)
    codes = []
    for start in tqdm(range(0, len(images), 64), desc="encoding", unit="batch"):
        codes.append(np.asarray(vqgan.encode(np.stack(images[start : start + 64]).astype(np.float32) / 255)))
    encoded = Encoded(np.concatenate(codes), list(captions), list(sources), vqgan.config.n_embed)
    path = encoded.save(options.out / "codes.npz")
    (options.out / "report.txt").write_text(report + "\n", encoding="utf8")
    if options.json:
        print(json.dumps({"file": str(path), "pictures": len(images), "code_length": encoded.codes.shape[1]}))
    else:
        print(f"{path}: {len(images)} pictures, {encoded.codes.shape[1]} codes each\n{report}")


def train(options: argparse.Namespace) -> None:
    """`minidalle train`: what the recipe's `kind` says."""
    from .training import load_recipe

    recipe = load_recipe(options.recipe)
    devices = {}
    if recipe["kind"] == "vqgan":
        if options.distributed or recipe["mesh"]:
            raise ValueError("a VQGAN is trained in PyTorch, without [mesh] and --distributed; several GPUs: torchrun")
        from .vqgan.train import train as run
    else:
        from .scale import distributed, mesh

        if options.distributed:
            distributed.initialize()
        devices["placement"] = mesh.from_recipe(recipe)
        if recipe["kind"] == "bart":
            from .bart.train import train as run
        else:
            from .clip.train import train as run
    run_dir = options.run_dir or Path("runs") / recipe["name"] / recipe["kind"]
    run(recipe, run_dir=run_dir, resume=not options.fresh, **devices)
    print(f"trained {recipe['name']}/{recipe['kind']}; log in {run_dir}")


def evaluate(options: argparse.Namespace) -> None:
    """`minidalle evaluate`: reconstruction, generation, retrieval."""
    from .evaluate import evaluate_emoji
    from .pipeline import Pipeline

    result = evaluate_emoji(Pipeline.load(options.model), options.seen, options.seed)
    print(json.dumps(result, indent=None if options.json else 2))


def convert(options: argparse.Namespace) -> None:
    """`minidalle convert`: the same weights in another layout."""
    from .hub.convert import convert as run

    kind = run(options.source, options.target, options.to, heads=options.heads)
    if options.json:
        print(
            json.dumps({"target": str(options.target), "was": kind.format, "network": kind.network, "is": options.to})
        )
    else:
        print(f"{options.target}: {kind} is now in the format {options.to}")


def info(options: argparse.Namespace) -> None:
    """`minidalle info`: read from the configs and the headers of the weight files; no weights are loaded."""
    from .hub.info import describe

    parts = describe(options.model)
    if options.json:
        print(json.dumps(parts))
        return
    for name, part in parts.items():
        print(
            f"{name}: {part['parameters']:,} parameters, {part['bytes'] / 2**20:.1f} MiB as {', '.join(part['types'])}"
        )
        for key, value in part["config"].items():
            print(f"  {key}: {value}")


if __name__ == "__main__":
    sys.exit(main())
