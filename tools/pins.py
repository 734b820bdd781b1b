"""Write the second part of requirements.txt: every package that the first part brought into this environment.

`python -m tools.pins` follows what the installed packages say they need, so that what somebody installed by hand
beside them stays out.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.chapters import ROOT

MARK = "# Brought along by the above; written by `make pins`."
# Not to be had everywhere, though needed where it is.
ONLY_ON = {
    "uvloop": 'sys_platform != "win32"',
    "pexpect": 'sys_platform != "win32"',
    "ptyprocess": 'sys_platform != "win32"',
}


def direct(text: str) -> dict[str, Requirement]:
    """Return `{name: requirement}` of the part written by hand; every line of it pins one package and says why."""
    pins = {}
    for line in text.split(MARK)[0].splitlines():
        if line.strip() and not line.startswith("#"):
            pin, _, reason = line.partition("  # ")
            requirement = Requirement(pin.strip())
            if not str(requirement.specifier).startswith("==") or not reason.strip():
                raise ValueError(f"requirements.txt: {line!r} should read 'name==version  # why it is needed'")
            pins[canonicalize_name(requirement.name)] = requirement
    return pins


def needed(pins: dict[str, Requirement]) -> dict[str, str]:
    """Return `{name: version}` of all that these installed packages need, themselves included."""
    found: dict[str, str] = {}
    waiting = [(name, frozenset(requirement.extras)) for name, requirement in pins.items()]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed here; run `make` first, then `make pins`") from None
        found[name] = package.version.split("+")[0]
        for line in package.requires or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (extras or {""})):
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    return found


def main() -> int:
    """Rewrite requirements.txt below its mark."""
    path = ROOT / "requirements.txt"
    text = path.read_text(encoding="utf8")
    pins = direct(text)
    along = {name: version for name, version in needed(pins).items() if name not in pins}
    lines = [
        f"{name}=={version}" + (f"; {ONLY_ON[name]}" if name in ONLY_ON else "")
        for name, version in sorted(along.items())
    ]
    path.write_text(text.split(MARK)[0] + "\n".join([MARK, *lines]) + "\n", encoding="utf8")
    print(f"{len(pins)} packages pinned by hand, {len(along)} brought along")
    return 0


if __name__ == "__main__":
    sys.exit(main())
