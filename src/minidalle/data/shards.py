"""WebDataset shards: tar files in which `0001.jpg` and `0001.txt` stand next to each other, read as a stream.

Notable:
- the tar format is taken apart by the `webdataset` library, one shard at a time, so that a broken one ends alone;
- only files on this machine are opened: no addresses, and none of webdataset's `pipe:` commands.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from minidalle.data.listing import PICTURES, Record
from minidalle.data.report import Report


def read_shard(shard: Path, report: Report) -> Iterator[Record]:
    """Gives the pairs of one tar file (plain or compressed) in its order; what is damaged goes to the report.

    The caption is the sample's `.txt`, `.caption` or `.text`, or the "caption" (or "text") of its `.json`.
    """
    from webdataset.tariterators import group_by_keys, tar_file_iterator  # slow to import, and needed for shards alone

    def files() -> Iterator[dict]:
        with shard.open("rb") as stream:
            try:
                for file in tar_file_iterator(stream):
                    yield file | {"__url__": str(shard)}
            except Exception as error:  # tarfile, zlib, lzma and OSError; what came before the damage is kept
                report.add("damaged shard", shard.name, f"{type(error).__name__}: {error}")

    def refuse(error: Exception) -> bool:
        report.add("bad sample", shard.name, error.args[0] if error.args else error)
        return True

    for sample in group_by_keys(files(), handler=refuse):
        source = f"{shard.name}/{sample['__key__']}"
        suffixes = [suffix for suffix in sample if not suffix.startswith("__")]
        pictures = [suffix for suffix in suffixes if f".{suffix.rsplit('.', 1)[-1]}" in PICTURES]
        plain = [suffix for suffix in pictures if "." not in suffix] or pictures
        caption = _caption(sample, source, report)
        if len(plain) > 1:
            report.add("bad sample", source, f"several pictures under one key: {', '.join(plain)}")
        elif plain and caption is None:
            report.add("picture without caption", source, "expected a .txt, or a .json with a 'caption'")
        elif caption is not None and not plain:
            report.add("caption without picture", source, f"the sample holds only {', '.join(suffixes)}")
        elif plain:
            yield Record(source, caption, sample[plain[0]])


def _caption(sample: dict, source: str, report: Report) -> str | None:
    for suffix in ("txt", "caption", "text"):
        if suffix in sample:
            try:
                return sample[suffix].decode("utf-8-sig")
            except UnicodeDecodeError as error:
                report.add("unreadable caption", source, error, dropped=False)
                return None
    try:
        content = json.loads(sample.get("json", b"{}"))
    except (ValueError, RecursionError) as error:
        report.add("unreadable caption", source, error, dropped=False)
        return None
    for key in ("caption", "text"):
        if isinstance(content, dict) and isinstance(content.get(key), str):
            return content[key]
    return None
