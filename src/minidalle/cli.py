"""The command `minidalle`. Results go to standard output, everything else to standard error; errors are one sentence."""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .scale.quiet import quieten_libtpu

KNOWN_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 after an error, 2 for wrong usage, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    quieten_libtpu()
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
        "--int8",
        action="store_true",
        help="multiply in 8 bits while drawing: a large model's single pictures come faster on CPUs with AVX-512 VNNI; other pictures",
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
        "pictures",
        nargs="+",
        metavar="PICTURES",
        help="a folder, with captions (as .txt, CSV, JSONL, COCO) or without; a captions file; or WebDataset .tar files",
    )
    command.add_argument("--out", type=Path, required=True, help="folder for the shards (.parquet) and report.txt")
    command.add_argument(
        "--model", default="emoji", help="whose VQGAN encodes: shipped, folder, file or Hub name (default emoji)"
    )
    command.add_argument("--batch-size", type=int, default=64, help="pictures encoded at a time (default 64)")
    command.add_argument("--shard-size", type=int, default=8192, help="pictures of a shard (default 8192)")
    command.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="this process, or Ray's workers (default local)"
    )
    command.add_argument("--address", help="of a Ray cluster, such as auto (default: Ray on this machine)")
    command.add_argument("--workers", type=int, help="threads that decode (local) or encoders (ray)")
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
        commands,
        "estimate",
        estimate,
        "say what training on a device takes: memory, time, dollars",
        "minidalle estimate mini --on v3-8 --batch 272",
    )
    command.add_argument(
        "config",
        metavar="CONFIG",
        help="mini, mega, a shipped checkpoint, a folder of one, or a config.json of DalleBart",
    )
    command.add_argument("--on", required=True, metavar="DEVICE", help="TPU slice as v3-8, or GPU as T4")
    command.add_argument(
        "--batch", type=int, default=256, help="pictures a step, on all devices together (default 256)"
    )
    command.add_argument(
        "--mesh", help="TPU devices along the axes data, fsdp and model, as data=4,model=2 (default: all along data)"
    )
    command.add_argument("--optimizer", default="adamw", choices=("adamw", "adafactor", "muon"))
    command.add_argument("--no-compile", action="store_true", help="arithmetic only: seconds instead of minutes")
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
    """`minidalle encode`: shards of codes and a report of what could not be read."""
    from functools import partial

    import jax

    from .hub.assemble import load_any_vqgan
    from .scale.encode import encode as run

    _check_writable(options.out / "report.txt")
    engine = "ray" if options.address else options.engine
    if engine == "ray":
        jax.config.update("jax_platforms", "cpu")  # the GPUs are for Ray's workers; this process only plans and writes
    shards = run(
        options.pictures,
        options.out,
        partial(load_any_vqgan, options.model),
        batch_size=options.batch_size,
        shard_size=options.shard_size,
        engine=engine,
        address=options.address,
        workers=options.workers,
        progress=sys.stderr.isatty(),
    )
    if options.json:
        found = {"folder": str(shards.folder), "files": [str(file) for file in shards.files]}
        found |= {"pictures": shards.pictures, "code_length": shards.code_length, "problems": len(shards.problems)}
        print(json.dumps(found))
    else:
        print(f"{shards.folder}: {shards.pictures:,} pictures in {len(shards.files):,} shards", end=", ")
        print(f"{shards.code_length} codes each\n{(options.out / 'report.txt').read_text(encoding='utf8').rstrip()}")


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
        from .training import processes

        if options.distributed:
            distributed.initialize()
        devices["placement"] = mesh.from_recipe(recipe)
        if recipe["kind"] == "bart":
            from .bart.train import train as run
        else:
            from .clip.train import train as run
    run_dir = options.run_dir or Path("runs") / recipe["name"] / recipe["kind"]
    run(recipe, run_dir=run_dir, resume=not options.fresh, **devices)
    if recipe["kind"] == "vqgan":
        leads = os.environ.get("RANK", "0") == "0"  # of torchrun
    else:
        leads = processes.leads()
    if leads:
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


def estimate(options: argparse.Namespace) -> None:
    """`minidalle estimate`: one training step on a device that need not be here."""
    from .scale.estimate import estimate as run
    from .scale.estimate import in_words

    result = run(
        _configuration(options.config),
        options.on,
        options.batch,
        mesh=_mesh(options.mesh),
        optimizer=options.optimizer,
        compiled=not options.no_compile,
    )
    print(json.dumps(result) if options.json else in_words(result))


def _configuration(name: str) -> Any:
    """The DalleBart's configuration that a published name, a checkpoint or a file stands for."""
    from .bart.config import DalleBartConfig
    from .hub.folders import find_checkpoint
    from .hub.recognise import read_object
    from .scale import cost

    published = {"mini": cost.MINI, "mega": cost.MEGA}
    if name in published:
        return published[name]
    if Path(name).is_file():
        path = Path(name)
    else:
        folder = find_checkpoint(name)
        path = next((p for p in (folder / "bart" / "config.json", folder / "config.json") if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"{folder} holds no DalleBart; expected a config.json, there or in a folder bart")
    values = read_object(path)
    if values.pop("kind", "bart") != "bart":
        raise ValueError(f"{path} describes another network; expected a DalleBart's config.json")
    return DalleBartConfig.from_dict(values, strict=False)


def _mesh(text: str | None) -> dict[str, int]:
    """`data=4,model=2` as numbers by axis."""
    if not text:
        return {}
    axes = [part.partition("=") for part in text.split(",")]
    if not all(count.isdecimal() for _, _, count in axes):
        raise ValueError(f"--mesh {text!r} is not of the form data=4,model=2")
    return {axis.strip(): int(count) for axis, _, count in axes}


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
