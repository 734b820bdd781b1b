"""Put into words what was measured while the chapters ran: a line for each chapter, a table for the status page."""

from datetime import date

LINE = "<!-- measured -->"
TABLE = "<!-- status -->"


def span(seconds: float) -> str:
    """Return a duration as a reader would say it: `8 s`, `2 min 5 s`, `1 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{max(whole, 1)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: int) -> str:
    """Return a number of bytes in MB below one GB, in GB above (powers of ten, as memory is sold)."""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def day(text: str) -> str:
    """Return an ISO date in words: `21 November 2026`."""
    value = date.fromisoformat(text)
    return f"{value.day} {value:%B %Y}"


def place(record: dict) -> str:
    """Return where a chapter ran: cores, processor, and the accelerator where JAX had one."""
    devices = [name for name in record["devices"] if name.lower() != "cpu"]
    return record["machine"] + (f" and {', '.join(devices)}" if devices else "")


def line(record: dict) -> str:
    """Return the sentence that stands at the head of a chapter."""
    return (
        f"*Measured when this page was built, on {day(record['date'])}: **{span(record['seconds'])}** "
        f"and **{size(record['peak_bytes'])}** of memory, on {place(record)}.*"
    )


def table(records: dict[str, dict]) -> str:
    """Return the status page's table from `{page: record}`, with what is the same for all said once below."""
    if not records:
        return "No chapter in this build runs code."
    rows = ["| chapter | time | memory | run on |", "|---|---:|---:|---|"]
    for page, record in records.items():
        # An empty link text takes the page's own title.
        rows.append(
            f"| [](/{page}) | {span(record['seconds'])} | {size(record['peak_bytes'])} | {day(record['date'])} |"
        )
    total, peak = sum(one["seconds"] for one in records.values()), max(one["peak_bytes"] for one in records.values())
    rows.append(f"| **all of them** | **{span(total)}** | **{size(peak)}** | |")
    kinds = [
        "Python {python}, JAX {jax}, Flax {flax}, PyTorch {torch}".format(**one) + f"; {place(one)}"
        for one in records.values()
    ]
    rows += [
        "",
        *(f"{'Run with' if not index else 'and with'} {kind}." for index, kind in enumerate(dict.fromkeys(kinds))),
    ]
    return "\n".join(rows)
