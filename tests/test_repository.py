"""What every chapter and every file of the repository keeps to, whoever wrote it."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from tools import chapters, exercises, pins, stamp, status
from tools.chapters import ROOT

CHAPTERS = chapters.notebooks()
LISTED = [path for page in chapters.listed() if (path := chapters.source_of(page)) in CHAPTERS]
LONGEST_CELL = 20


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf8")
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
class TestEveryChapter:
    def test_is_valid_and_stored_without_outputs(self, path: Path) -> None:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert [cell.source for cell in code_cells(path) if cell.outputs or cell.execution_count] == []
        assert "widgets" not in notebook.metadata

    def test_asks_for_the_kernel_that_everyone_has(self, path: Path) -> None:
        assert nbformat.read(path, as_version=4).metadata["kernelspec"]["name"] == "python3"

    def test_begins_its_code_with_the_stamped_cell(self, path: Path) -> None:
        expected = stamp.setup_cell(stamp.project())
        first = code_cells(path)[0]
        assert first.source == expected.source, "run `make stamp`"
        assert first.metadata["tags"] == expected.metadata["tags"], "run `make stamp`"

    def test_has_no_cell_that_belongs_in_the_library(self, path: Path) -> None:
        long = [cell.source for cell in code_cells(path) if sum(map(bool, cell.source.split("\n"))) > LONGEST_CELL]
        assert long == []

    def test_asserts_something(self, path: Path) -> None:
        assert any("assert" in cell.source or "check_" in cell.source for cell in code_cells(path)[1:])

    def test_gives_every_figure_alt_text(self, path: Path) -> None:
        for cell in code_cells(path):
            shown = cell.metadata.get("mystnb", {})
            if "figure" in shown:
                assert shown.get("image", {}).get("alt", "").strip(), (
                    f"a figure without mystnb.image.alt: {cell.source}"
                )
                assert shown["figure"].get("caption", "").strip(), f"a figure without a caption: {cell.source}"

    def test_leaves_a_place_for_what_was_measured(self, path: Path) -> None:
        assert prose(path).count(status.LINE) == 1

    def test_closes_with_exercises_that_have_solutions(self, path: Path) -> None:
        found = exercises.titles(nbformat.read(path, as_version=4))
        assert 4 <= len(found) <= 6, "end with 4 to 6 exercises, each begun with **1. Its title.** and so on"

    def test_is_listed(self, path: Path) -> None:
        assert path in LISTED, f"{name(path)} is not in _toc.yml"


def test_every_listed_page_exists() -> None:
    for page in chapters.listed():
        assert chapters.source_of(page).exists()


def test_every_page_has_a_title() -> None:
    for page in chapters.listed():
        assert stamp.title(chapters.source_of(page))


@pytest.mark.parametrize("page", chapters.listed())
def test_pictures_of_the_prose_have_alt_text(page: str) -> None:
    path = chapters.source_of(page)
    for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)", prose(path)):
        assert alt.strip(), f"{target} has no alt text"
        if "://" not in target and not target.startswith("attachment:"):
            assert (path.parent / target).exists(), f"{target} does not exist"


def test_the_bibliography_holds_what_is_cited_once_and_nothing_else() -> None:
    keys = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book/references.bib").read_text(encoding="utf8"), re.MULTILINE)
    assert sorted(set(keys)) == sorted(keys)
    cited = set()
    for page in chapters.listed():
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose(chapters.source_of(page))):
            found = {key.strip() for key in group.split(",")}
            assert found <= set(keys), page
            cited |= found
    assert cited == set(keys)


def test_terms_are_in_the_glossary() -> None:
    glossary = (ROOT / "book/back/glossary.md").read_text(encoding="utf8")
    terms = {
        line for line in glossary.split("```{glossary}")[1].split("\n") if line and not line.startswith((" ", "`"))
    }
    assert len(terms) >= 40
    for page in chapters.listed():
        for text in re.findall(r"\{term\}`([^`]+)`", prose(chapters.source_of(page))):
            word = found.group(1) if (found := re.search(r"<([^>]+)>$", text)) else text
            assert word.lower() in {term.lower() for term in terms}, f"{page} links to the term {word!r}"


def test_the_glossary_is_in_alphabetical_order() -> None:
    glossary = (ROOT / "book/back/glossary.md").read_text(encoding="utf8")
    body = glossary.split("```{glossary}")[1]
    terms = [line.lower() for line in body.split("\n") if line and not line.startswith((" ", "`"))]
    assert terms == sorted(terms)


class TestTheAddress:
    def test_is_stamped_everywhere(self) -> None:
        this = stamp.project()
        assert yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["repository"]["url"] == this.address
        assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))["repository-code"] == this.address
        for path in chapters.tracked(*stamp.TEXTS):
            assert stamp.stamped_text(path, this, this) == path.read_text(encoding="utf8"), (
                f"{name(path)}: run `make stamp`"
            )

    def test_stands_in_no_python_file_of_the_build(self) -> None:
        slug = stamp.project().slug
        holders = [name(path) for path in chapters.tracked("tools/*.py", "_ext/*.py", "Makefile", ".ci/run")]
        assert [held for held in holders if f"github.com/{slug}" in (ROOT / held).read_text(encoding="utf8")] == []

    def test_has_the_version_beside_it(self) -> None:
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
        assert citation["version"] == stamp.project().version


class TestRequirements:
    def lower_bounds(self) -> dict[str, str]:
        table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
        lines = table["dependencies"] + [line for extra in table["optional-dependencies"].values() for line in extra]
        return {pins.canonicalize_name(pins.Requirement(line).name): line for line in lines}

    def test_every_line_of_the_build_is_an_exact_pin(self) -> None:
        for line in (ROOT / "requirements.txt").read_text(encoding="utf8").splitlines():
            if line and not line.startswith("#"):
                assert re.match(r"[\w.-]+(\[\w+\])?==[\w.]+(;|  #|$)", line), line

    def test_every_direct_one_has_its_reason(self) -> None:
        assert len(pins.direct((ROOT / "requirements.txt").read_text(encoding="utf8"))) > 20

    def test_the_build_holds_all_that_the_package_needs(self) -> None:
        direct = pins.direct((ROOT / "requirements.txt").read_text(encoding="utf8"))
        for package, line in self.lower_bounds().items():
            assert package in direct, f"{line} stands in pyproject.toml but not in the first part of requirements.txt"
            (pin,) = direct[package].specifier
            assert pin.version in pins.Requirement(line).specifier, f"{line} excludes the pinned {pin.version}"

    def test_the_package_asks_for_nothing_newer_than_colab_carries(self) -> None:
        text = (ROOT / "tests/colab.txt").read_text(encoding="utf8")
        colab = dict(line.split("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))
        for package, line in self.lower_bounds().items():
            requirement = pins.Requirement(line)
            assert not any(bound.operator in {"<", "<=", "==", "~="} for bound in requirement.specifier), (
                f"upper pin: {line}"
            )
            if package in colab:
                assert colab[package] in requirement.specifier, (
                    f"Colab's {package} {colab[package]} is too old for {line}"
                )


def test_nothing_large_is_in_git() -> None:
    large = {name(path): path.stat().st_size for path in chapters.tracked() if path.stat().st_size > 30e6}
    assert large == {}


def test_imports_run_one_way() -> None:
    order = re.search(r"One direction only: ([^.]+)\.", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")).group(1)
    places = {part: place for place, part in enumerate(order.split(" → "))}
    package = ROOT / "src/minidalle"
    assert {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} == {
        "__init__", *places
    }  # fmt: skip
    for path in sorted(package.glob("*/*.py")) + sorted(package.glob("[!_]*.py")):
        inside = path.relative_to(package).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            above = ("minidalle", *inside)[: -node.level] if node.level else ()
            modules = [".".join(filter(None, (*above, node.module, alias.name))) for alias in node.names]
            parts = [module.split(".")[1] for module in modules if module.startswith("minidalle.")]
            wrong = [part for part in parts if places.get(part, -1) > places[inside[0]]]
            assert wrong == [], f"{name(path)}, line {node.lineno}: imports from a later part"


def test_no_stub_is_left() -> None:
    words = ["TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", "pragma: no " + "cover"]
    found = [
        (name(path), word)
        for path in chapters.tracked("*.py", "*.ipynb", "*.md")
        for word in words
        if word in path.read_text()
    ]
    assert found == []


def test_the_ci_script_can_be_run() -> None:
    mode = subprocess.run(
        ["git", "ls-files", "--stage", ".ci/run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert mode.stdout.startswith("100755")
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"]).returncode == 0


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_that_the_prose_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE))
    assert named and named <= targets
