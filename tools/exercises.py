"""Find the exercises and solutions of the chapters, so that the back of the book can list them with links."""

import re

import nbformat

PLACE = "<!-- exercises -->"
_EXERCISE = re.compile(r"^\*\*(\d+)\. (.+?)\.?\*\*", re.MULTILINE)
_SOLUTION = re.compile(r"^\*\*Solution to (\d+)\b", re.MULTILINE)


def anchor(kind: str, page: str, number: str) -> str:
    """Return the name of the place of an exercise or a solution: `exercise-images-codebook-2`."""
    return "-".join([kind, *page.split("/")[1:], number])


def mark(text: str, page: str) -> str:
    """Return a cell's Markdown with a target line before each exercise and each solution in it."""
    text = _EXERCISE.sub(lambda found: f"({anchor('exercise', page, found[1])})=\n{found[0]}", text)
    return _SOLUTION.sub(lambda found: f"({anchor('solution', page, found[1])})=\n{found[0]}", text)


def titles(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Return the chapter's exercises as `{number: title}`, in their order.

    Raises ValueError for an exercise without a solution, or a solution without its exercise.
    """
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found, solved = dict(_EXERCISE.findall(text)), set(_SOLUTION.findall(text))
    if set(found) != solved:
        raise ValueError(f"exercises {sorted(set(found) ^ solved)} and their solutions do not go together")
    return found


def listing(exercises: dict[str, dict[str, str]]) -> str:
    """Return the list of all exercises from `{page: {number: title}}`, chapter by chapter."""
    lines = []
    for page, titles in exercises.items():
        lines += [f"**[](/{page})**", ""]  # an empty link text takes the page's own title
        for number, title in titles.items():
            question, answer = anchor("exercise", page, number), anchor("solution", page, number)
            lines.append(f"{number}. [{title}](#{question}) ([solution](#{answer}))")
        lines.append("")
    return "\n".join(lines)
