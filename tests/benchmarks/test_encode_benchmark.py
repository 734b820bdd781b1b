"""The benchmark of encoding runs at toy size."""

import json

from benchmarks import encode


def test_engines_are_compared_with_the_encoder_alone(capsys):
    arguments = ["--pictures", "12", "--side", "32", "--batch-size", "4", "--shard-size", "8", "--repeats", "2"]
    found = encode.main([*arguments, "--engines", "local", "in turn", "--json"])
    assert json.loads(capsys.readouterr().out) == found
    assert set(found["of the ideal"]) == {"ideal", "local", "in turn"}
    assert found["of the ideal"]["ideal"]["median"] == 1
    assert all(each["lowest"] > 0 for each in found["pictures a second"].values())
    assert found["seconds to decode a picture"] > 0
    text = encode.in_tables(found)
    assert "| in turn |" in text and "- seconds to compile" in text
