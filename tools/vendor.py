"""Fetch the two scripts that the pages need from others, so that no reader's browser asks another server for them.

`python -m tools.vendor` puts MathJax (formulas) and the Jupyter widgets' HTML manager (widgets without a kernel) into
`_build/vendor/`, from the npm registry, by fixed version and checksum. Nothing is fetched twice, and node is not needed.
"""

import hashlib
import io
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tools.chapters import ROOT

VENDOR = ROOT / "_build" / "vendor"
REGISTRY = os.environ.get("NPM_REGISTRY", "https://registry.npmjs.org").rstrip("/")


@dataclass(frozen=True)
class Package:
    """One archive of the npm registry, and which of its files the pages use."""

    folder: str  # below _build/vendor
    path: str  # below the registry's address
    sha256: str
    keep: dict[str, str]  # prefix inside the archive -> prefix inside the folder
    drop: tuple[str, ...] = ()  # suffixes left out
    mend: tuple[tuple[str, str, str], ...] = ()  # (file inside the folder, its text, our text)

    @property
    def mark(self) -> str:
        """What is noted beside the unpacked files: another version, choice of files or mending is fetched anew."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


PACKAGES = (
    Package(
        folder="mathjax",
        path="mathjax/-/mathjax-3.2.2.tgz",
        sha256="1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09",
        keep={
            "package/LICENSE": "LICENSE",
            "package/es5/tex-chtml-full.js": "tex-chtml-full.js",
            "package/es5/output/chtml/fonts/woff-v2/": "output/chtml/fonts/woff-v2/",
            # What the formulas' own menu loads: reading aloud, and exploring by keyboard.
            "package/es5/a11y/": "a11y/",
            "package/es5/sre/mathmaps/base.json": "sre/mathmaps/base.json",
            "package/es5/sre/mathmaps/en.json": "sre/mathmaps/en.json",
        },
    ),
    Package(
        folder="html-manager",
        path="@jupyter-widgets/html-manager/-/html-manager-1.0.14.tgz",
        sha256="9d647396585ef74da93f87f645c5dcc14bebf5784192c577f72b199597614e81",
        keep={"package/LICENSE": "LICENSE", "package/dist/": ""},
        drop=(".map", "-amd.js", ".eot", ".svg"),
        # It sets formulas in widgets with MathJax 2, and stops with an error where it meets MathJax 3.
        mend=(
            (
                "embed.js",
                'void 0!==window.MathJax&&MathJax.Hub.Queue(["Typeset",MathJax.Hub,e])',
                "window.MathJax&&MathJax.typesetPromise&&MathJax.typesetPromise([e])",
            ),
        ),
    ),
)


def unpack(archive: bytes, package: Package, target: Path) -> list[Path]:
    """Write the package's kept files from a .tgz below `target` and return their paths.

    Raises ValueError when the archive is not the one whose checksum is noted, or holds a path that leaves `target`.
    """
    found = hashlib.sha256(archive).hexdigest()
    if found != package.sha256:
        raise ValueError(
            f"{package.path} has SHA-256 {found}, expected {package.sha256}; fetch it again, or review it anew"
        )
    written = []
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            prefix = next((start for start in package.keep if member.name.startswith(start)), None)
            if prefix is None or not member.isfile() or member.name.endswith(package.drop or ("\0",)):
                continue
            path = target / (package.keep[prefix] + member.name.removeprefix(prefix))
            if not path.resolve().is_relative_to(target.resolve()):
                raise ValueError(f"{package.path} holds {member.name}, which leaves its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tar.extractfile(member).read())
            written.append(path)
    for name, theirs, ours in package.mend:
        text = (target / name).read_text(encoding="utf8")
        if theirs not in text:
            raise ValueError(f"{package.path}: {name} no longer holds what is to be mended in it: {theirs}")
        (target / name).write_text(text.replace(theirs, ours), encoding="utf8")
    return written


def fetch(package: Package, vendor: Path = VENDOR) -> bool:
    """Make sure that the package lies below `vendor`; return whether it had to be fetched."""
    mark = vendor / package.folder / "FETCHED"
    if mark.exists() and mark.read_text().strip() == package.mark:
        return False
    with urllib.request.urlopen(f"{REGISTRY}/{package.path}", timeout=120) as answer:
        archive = answer.read()
    shutil.rmtree(mark.parent, ignore_errors=True)
    unpack(archive, package, mark.parent)
    # Written last: a fetch that was cut off is done again.
    mark.write_text(package.mark + "\n")
    return True


def main() -> int:
    """Fetch what is missing; return 1, with the reason, when it cannot be had."""
    for package in PACKAGES:
        try:
            fetched = fetch(package)
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            print(f"cannot fetch {package.folder} from {REGISTRY}: {error}", file=sys.stderr)
            print("Set NPM_REGISTRY to a registry that this machine reaches, and run make again.", file=sys.stderr)
            return 1
        print(f"{package.folder}: {'fetched' if fetched else 'here already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
