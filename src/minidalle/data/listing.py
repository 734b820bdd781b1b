"""Which picture has which caption: reads folders and captions files into a plain list, and names what does not match up.

Notable:
- a captions file is CSV or TSV with a header, JSONL, a JSON list, or COCO captions JSON; without one, `cat.txt` captions `cat.jpg`;
- a picture may have several captions, each is a pair of its own;
- a captions file is someone else's text: a name in it that leads out of the folder, by `..`, from `/` or through a link,
  is refused.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minidalle.data.report import Report

PICTURES = frozenset(".jpg .jpeg .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .avif".split())
CAPTION_FILES = frozenset(".csv .tsv .jsonl .json".split())
PICTURE_COLUMNS = ("file_name", "filename", "image", "file", "path", "image_path", "filepath")
CAPTION_COLUMNS = ("caption", "text", "captions", "description")


@dataclass(frozen=True)
class Record:
    """A caption and where its picture is: a file, or the bytes of one; `source` is the name to report it by."""

    source: str
    caption: str
    picture: Path | bytes


def list_folder(folder: Path, captions: Path | None, report: Report) -> list[Record]:
    """Lists the pairs of a folder, sorted by name, or in the order of its captions file.

    `captions` is the captions file; with None it is looked for in the folder (`captions.*`, `metadata.*`, or the only
    one), and `.txt` files are read where there is none. Pictures without captions and the reverse go to the report.
    Raises `ValueError` when a captions file cannot be understood, or when the choice between several is not clear.
    """
    captions = captions or _captions_file(folder)
    pictures = sorted(name for name in _names(folder) if Path(name).suffix.lower() in PICTURES)
    if captions is None:
        return _beside(folder, pictures, report)
    records = []
    for name, caption in _rows(captions, report):
        path = _inside(folder, name, report)
        if path is not None:
            records.append(Record(name, caption, path))
    captioned = {os.path.normpath(record.source) for record in records}
    for name in pictures:
        if os.path.normpath(name) not in captioned:
            report.add("picture without caption", name, f"{captions.name} does not mention it")
    return records


def list_pictures(folder: Path) -> list[Record]:
    """Lists the pictures of a folder that has no captions, sorted by name, each with the caption ""."""
    return [Record(name, "", folder / name) for name in _names(folder) if Path(name).suffix.lower() in PICTURES]


def _names(folder: Path) -> Iterator[str]:
    """Files below the folder relative to it, hidden ones left out, in the same order on every machine."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield (Path(place) / name).relative_to(folder).as_posix()


def _captions_file(folder: Path) -> Path | None:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in CAPTION_FILES and path.is_file())
    named = [path for path in found if path.stem.lower() in ("captions", "metadata")]
    choice = named if len(found) > 1 and named else found
    if len(choice) > 1:
        names = ", ".join(path.name for path in choice)
        raise ValueError(f"{folder} holds several captions files ({names}); say which with captions=")
    return choice[0] if choice else None


def _inside(folder: Path, name: str, report: Report) -> Path | None:
    """The file of that name, if it is a file within the folder; otherwise the report says what is wrong with it."""
    try:
        path = (folder / name).resolve()
        inside, there = path.is_relative_to(folder.resolve()), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, a name too long, a circle of links
        report.add("missing picture", name[:100], f"not a usable file name: {error}")
        return None
    if not inside:
        report.add("outside the folder", name, "refused: it leads out of the folder of the pictures")
    elif not there:
        report.add("missing picture", name, "there is no such file")
    return path if inside and there else None


def _beside(folder: Path, pictures: list[str], report: Report) -> list[Record]:
    """Pairs each picture with the `.txt` file of its name."""
    records, used = [], set()
    for name in pictures:
        beside = Path(name).with_suffix(".txt").as_posix()
        text = _inside(folder, beside, Report())  # a missing caption is reported below, in its own words
        if text is None:
            report.add("picture without caption", name, f"expected its caption in {beside}")
            continue
        used.add(beside)
        path = _inside(folder, name, report)
        try:
            caption = text.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            report.add("unreadable caption", beside, error)
            continue
        if path is not None:
            records.append(Record(name, caption, path))
    for name in _names(folder):
        if name.endswith(".txt") and name not in used:
            report.add("caption without picture", name, "no picture of that name stands beside it")
    return records


def _rows(captions: Path, report: Report) -> Iterable[tuple[str, str]]:
    """The (picture, caption) rows of a captions file of any kind."""
    try:
        text = captions.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{captions} is not UTF-8 ({error}); save it as UTF-8") from None
    kind = captions.suffix.lower()
    if kind in (".csv", ".tsv"):
        return _table(captions, text, report)
    if kind == ".jsonl":
        return _objects(captions, _json_lines(captions, text, report), report)
    if kind != ".json":
        raise ValueError(f"{captions} is not a captions file; expected .csv, .tsv, .jsonl or .json")
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{captions} is not valid JSON ({error})") from None
    if isinstance(content, list):
        return _objects(captions, enumerate(content, 1), report)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        return _coco(captions, content, report)
    raise ValueError(f"{captions} is neither a list of objects nor COCO captions with 'images' and 'annotations'")


def _table(captions: Path, text: str, report: Report) -> Iterator[tuple[str, str]]:
    for delimiter in ",\t;|":
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = [name.strip().lower() for name in next(reader, [])]
        picture, caption = (_first(columns, known) for known in (PICTURE_COLUMNS, CAPTION_COLUMNS))
        if picture and caption:
            break
    else:
        raise ValueError(
            f"{captions} begins with {text[:80].splitlines()[:1]}; expected a header with a picture column "
            f"({', '.join(PICTURE_COLUMNS)}) and a caption column ({', '.join(CAPTION_COLUMNS)})"
        )
    while True:
        place = f"{captions.name} line {reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            report.add("bad line", place, error)
            continue
        if len(row) == len(columns):
            yield row[columns.index(picture)].strip(), row[columns.index(caption)]
        elif row:
            report.add(
                "bad line", place, f"{len(row)} fields for {len(columns)} columns; quote captions that hold a comma"
            )


def _json_lines(captions: Path, text: str, report: Report) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON may hold U+2028 as it is
        if line.strip():
            try:
                yield number, json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                report.add("bad line", f"{captions.name} line {number}", error)


def _objects(captions: Path, numbered: Iterable[tuple[int, object]], report: Report) -> Iterator[tuple[str, str]]:
    for number, item in numbered:
        place = f"{captions.name} item {number}"
        keys = item if isinstance(item, dict) else {}
        picture, caption = (_first(keys, known) for known in (PICTURE_COLUMNS, CAPTION_COLUMNS))
        if not picture or not caption or not isinstance(item[picture], str):
            report.add("bad line", place, "expected an object such as {'file_name': 'cat.jpg', 'caption': 'a cat'}")
            continue
        several = item[caption] if isinstance(item[caption], list) else [item[caption]]
        for text in several:
            if isinstance(text, str):
                yield item[picture], text
            else:
                report.add("bad line", place, f"the caption is {type(text).__name__}, not text")


def _coco(captions: Path, content: dict, report: Report) -> Iterator[tuple[str, str]]:
    """COCO captions (Chen et al. 2015): `images` with `id`, `file_name`; `annotations` with `image_id`, `caption`."""
    names = {}
    for number, image in enumerate(content["images"], 1):
        if (
            isinstance(image, dict)
            and isinstance(image.get("file_name"), str)
            and isinstance(image.get("id"), int | str)
        ):
            names[image["id"]] = image["file_name"]
        else:
            report.add("bad line", f"{captions.name} image {number}", "expected 'id' and 'file_name'")
    annotations = content.get("annotations")
    for number, annotation in enumerate(annotations if isinstance(annotations, list) else [], 1):
        place = f"{captions.name} annotation {number}"
        given = annotation if isinstance(annotation, dict) else {}
        identity = given.get("image_id")
        if not isinstance(given.get("caption"), str) or not isinstance(identity, int | str):
            report.add("bad line", place, "expected 'image_id' and a 'caption' that is text")
        elif identity not in names:
            report.add("caption without picture", place, f"no image has the id {identity!r}")
        else:
            yield names[identity], given["caption"]


def _first(columns: Iterable[str], known: tuple[str, ...]) -> str | None:
    return next((name for name in known if name in columns), None)
