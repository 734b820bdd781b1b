"""The benchmark of starting runs at toy size."""

import json

from benchmarks import start


def test_importing_generating_and_compiling_are_timed(capsys):
    found = start.main(["--depths", "2", "3", "--width", "32", "--repeats", "1", "--json"])
    assert json.loads(capsys.readouterr().out) == found
    seconds = {name: each["median"] for name, each in found["seconds"].items()}
    assert 0 < seconds["import nothing"] < seconds["minidalle generate, 8 pictures"]
    assert [(row["depth"], row["scanned"]) for row in found["compiling"]] == [
        (depth, scanned) for depth in (2, 3) for scanned in (True, False)
    ]
    assert all(row["median"] > 0 for row in found["compiling"])
    text = start.in_tables(found)
    assert "| import minidalle |" in text and "| 3 |" in text
