"""An index of the glossary's words: the directive `term-index` lists every place where a page links one with `{term}`.

The places are the sections; each stands once for a word, in reading order.
"""

from collections import Counter, defaultdict

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Index(nodes.General, nodes.Element):
    """Where the index will stand once all pages are read."""


class TermIndex(SphinxDirective):
    """`term-index`, without arguments or content."""

    def run(self) -> list[nodes.Node]:
        return [Index()]


def collect(app: Sphinx, doctree: nodes.document) -> None:
    """Note which sections of a page use which words: `{word: [(section's id, section's title), …]}`."""
    uses = defaultdict(dict)
    for link in doctree.findall(pending_xref):
        if link.get("reftype") != "term":
            continue
        section = link.parent
        while not isinstance(section, nodes.section):
            section = section.parent
        place = section["ids"][0], section.next_node(nodes.title).astext()
        uses[link["reftarget"].lower()][place] = None
    every = app.env.__dict__.setdefault("term_uses", {})
    every[app.env.docname] = {word: list(places) for word, places in uses.items()}


def forget(app: Sphinx, env: object, docname: str) -> None:
    """Drop what was noted of a page that is read again or gone."""
    env.__dict__.setdefault("term_uses", {}).pop(docname, None)


def merge(app: Sphinx, env: object, docnames: list[str], other: object) -> None:
    """Take over what another process noted."""
    env.__dict__.setdefault("term_uses", {}).update(other.__dict__.get("term_uses", {}))


def fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the index in its place: a list of words, each with links to its explanation and to its uses."""
    places = list(doctree.findall(Index))
    if not places:  # every page comes by here, and one has it
        return
    explained = {
        word.lower(): (shown, page, anchor)
        for word, shown, kind, page, anchor, _ in app.env.domains["std"].get_objects()
        if kind == "term"
    }
    uses = {page: app.env.term_uses[page] for page in app.env.collect_relations() if page in app.env.term_uses}
    # All chapters on one page (`singlehtml`) share their anchors: one that several have leads to the first of them.
    sections = Counter(section for page in app.env.tocs for section in anchors(app.env.tocs[page]))
    alone = app.builder.name != "singlehtml"

    def link(text: str, page: str, anchor: str = "") -> nodes.reference:
        fragment = f"#{anchor}" if anchor and (alone or sections[f"#{anchor}"] < 2) else ""
        return nodes.reference("", text, refuri=app.builder.get_relative_uri(docname, page) + fragment, internal=True)

    for index in places:
        entries = nodes.bullet_list(classes=["term-index"])
        for word, (shown, page, anchor) in sorted(explained.items()):
            line = nodes.paragraph("", "", nodes.strong("", "", link(shown, page, anchor)))
            for used in uses:
                if used == page:  # the explanations name each other
                    continue
                title = app.env.titles[used].astext()
                for number, (section, name) in enumerate(uses[used].get(word, [])):
                    line += [nodes.Text(", ")] if number else [nodes.Text(" · "), nodes.emphasis("", title + ": ")]
                    line += link("opening" if name == title else name, used, section)
            entries += nodes.list_item("", line)
        index.replace_self(entries)


def anchors(toc: nodes.Node) -> list[str]:
    """Return the anchors of a page's sections, as `#the-section`."""
    return [link["anchorname"] for link in toc.findall(nodes.reference) if link.get("anchorname")]


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.add_node(Index)
    app.add_directive("term-index", TermIndex)
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("doctree-resolved", fill)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
