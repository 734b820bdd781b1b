"""Where checkpoints lie: the shipped ones by name, others by path."""

from pathlib import Path

SHIPPED = Path(__file__).parent.parent / "checkpoints"


def shipped_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir()) if SHIPPED.is_dir() else []


def find_checkpoint(name: str | Path) -> Path:
    """Return the folder of a shipped checkpoint (by name) or of one on disk (by path).

    Raises:
        FileNotFoundError: neither exists; the message lists what is shipped.
    """
    if str(name) in shipped_names():
        return SHIPPED / str(name)
    if Path(name).is_dir():
        return Path(name)
    shipped = ", ".join(shipped_names()) or "none"
    raise FileNotFoundError(f"no checkpoint {str(name)!r}: it is neither a shipped name ({shipped}) nor a folder")
