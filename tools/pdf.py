"""Print the book: `python -m tools.pdf` turns the one-page rendering into `_build/minidalle.pdf`.

Chromium prints what it shows, so the PDF holds the same figures, formulas and widgets (as they stand at first) as the
pages. It is printed at least twice: a browser cannot say on which page something comes to lie, so the contents and the
index take their page numbers from the named places of the print before.
"""

import logging
import sys
from datetime import date
from pathlib import Path

import yaml
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter

from tools import browser, status
from tools.chapters import ROOT

ONE_PAGE = ROOT / "_build" / "singlehtml"
PDF = ROOT / "_build" / "minidalle.pdf"
PAPER = {"format": "A4", "margin": {"top": "18mm", "bottom": "18mm", "left": "20mm", "right": "20mm"}, "scale": 0.75}
FOOTER = '<p style="font: 8px sans-serif; width: 100%; text-align: center"><span class="pageNumber"></span></p>'

# Runs in the page. What serves only the screen goes, what is folded opens, chapters stand beside the introduction
# instead of below it, and a title page and the contents come first. Each link of the contents and of the index gets room
# for a page's number. Returns [level, title, place] of each entry of the contents.
PREPARE = """async ([day, parts]) => {
  document.documentElement.dataset.theme = "light";
  const article = document.querySelector("article");
  document.body.replaceChildren(article);
  article.querySelectorAll(".headerlink, button").forEach(node => node.remove());
  article.querySelectorAll("details").forEach(node => { node.open = true; });

  const make = (name, text, kind) => {
    const node = document.createElement(name);
    node.textContent = text;
    if (kind) node.className = kind;
    return node;
  };
  const promote = heading => {
    const higher = make("h" + (heading.tagName[1] - 1), "");
    higher.append(...heading.childNodes);
    heading.replaceWith(higher);
  };
  for (const mark of article.querySelectorAll('[id^="document-"]')) {
    mark.nextElementSibling.querySelectorAll("h2, h3, h4, h5, h6").forEach(promote);
    const part = parts[mark.id.replace("document-", "")];
    if (part) mark.nextElementSibling.querySelector("h1").dataset.part = part;
  }

  // Chromium tells on which page a linked element lies where that element is a heading, or text in a line.
  const number = (link, target) => {
    let place = target.matches("h1, h2, h3") ? target : target.querySelector(':scope > [id^="place-"]');
    if (!place) {
      place = make("span", "");
      place.append(...target.childNodes);
      target.append(place);
    }
    if (!place.id.startsWith("place-")) place.id = "place-" + document.querySelectorAll(".print-number").length;
    const room = make("span", "000", "print-number");
    room.dataset.place = place.id;
    link.href = "#" + place.id;
    link.after(room);
  };
  const front = make("header", "", "print-front"), list = make("ol", "", "print-list"), entries = [];
  front.append(make("p", "minidalle", "print-title"), make("p", "An executable book about DALL·E mini"),
               make("p", "The minidalle authors, " + day), make("p", "Contents", "print-contents"), list);
  article.prepend(front);
  for (const heading of article.querySelectorAll("h1, h2")) {
    const level = Number(heading.tagName[1]), title = heading.textContent.replace(/\\s+/g, " ").trim();
    if (heading.dataset.part) list.append(make("li", heading.dataset.part, "print-part"));
    const entry = make("li", "", "print-level-" + level), link = make("a", title);
    list.append(entry);
    entry.append(link);
    number(link, heading);
    entries.push([level, title, heading.id]);
  }
  for (const link of article.querySelectorAll(".term-index a")) {
    const target = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    number(link, target.matches("section") ? target.querySelector("h1, h2, h3") : target);
  }
  const pictures = [...article.querySelectorAll("img")];
  pictures.forEach(picture => { picture.loading = "eager"; });
  await Promise.all([document.fonts.ready, ...pictures.map(picture => picture.decode())]);
  return entries;
}"""
PRINTS = 3  # at most
PLACES = '() => [...document.querySelectorAll(".print-number")].map(room => room.dataset.place)'
NUMBER = """(numbers) => document.querySelectorAll(".print-number").forEach(room => {
  room.textContent = numbers[room.dataset.place];
})"""


def parts() -> dict[str, str]:
    """Return the name of each part of the book under the page that begins it (`book/tour`)."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    return {part["chapters"][0]["file"]: part["caption"] for part in toc["parts"]}


def page_numbers(pdf: Path, wanted: list[str]) -> dict[str, int]:
    """Return the page, from 1 on, on which each of these places (the anchors of links) lies.

    Raises ValueError for a place that the PDF does not have: then a link of the contents or the index leads nowhere.
    """
    reader = PdfReader(pdf)
    places = {name.lstrip("/"): place for name, place in reader.named_destinations.items()}
    if lost := sorted(set(wanted) - set(places)):
        raise ValueError(f"{pdf.name} has no place named {', '.join(lost)}; does the page have it?")
    return {name: reader.get_destination_page_number(places[name]) + 1 for name in wanted}


def print_page(page: Page, path: Path) -> None:
    """Write the opened page as a PDF, marked up for screen readers and numbered at the foot."""
    page.pdf(
        path=path,
        tagged=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOTER,
        **PAPER,
    )


def add_outline(path: Path, entries: list[tuple[int, str, str]], numbers: dict[str, int]) -> None:
    """Give the PDF its title, and the contents as an outline beside the pages."""
    writer = PdfWriter(clone_from=path)
    writer.add_metadata({"/Title": "minidalle", "/Author": "The minidalle authors"})
    chapter = None
    for level, title, place in entries:
        parent = None if level == 1 else chapter
        item = writer.add_outline_item(title=title, page_number=numbers[place] - 1, parent=parent)
        chapter = item if level == 1 else chapter
    writer.write(path)


def main() -> int:
    """Print the book and say where it is."""
    # Sphinx writes the page where the root document stands, and its links as if it stood at the top.
    (written,) = ONE_PAGE.glob("book/*.html")
    html = written.rename(ONE_PAGE / "minidalle.html")
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # Chromium's count of objects is off by some; all are read
    draft = PDF.with_name("draft.pdf")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser.find_chromium(), args=browser.FLAGS)
        page = running.new_page()
        page.route(lambda url: not url.startswith(("file:", "data:", "blob:")), lambda route: route.abort())
        browser.open_page(page, html.as_uri())
        entries = page.evaluate(PREPARE, [status.day(date.today().isoformat()), parts()])
        places = page.evaluate(PLACES)
        numbers: dict[str, int] = {}
        # The numbers of the first print stand in the second; where they moved a line over a page's end, a third has it right.
        for _ in range(PRINTS):
            print_page(page, draft)
            found, numbers = numbers, page_numbers(draft, places)
            if found == numbers:
                break
            page.evaluate(NUMBER, numbers)
        else:
            # A place on the edge between two pages goes over it and back with its own number; either page is right then.
            if any(abs(found[place] - numbers[place]) > 1 for place in places):
                raise RuntimeError(
                    f"page numbers still moved the pages after {PRINTS} prints; widen the column they stand in"
                )
        running.close()
    add_outline(draft, entries, numbers)
    draft.replace(PDF)
    print(f"The book on paper: {PDF}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
