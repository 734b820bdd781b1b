"""The benchmark of matrix orders runs at toy size and gives every contestant's times."""

import json

from benchmarks import matrices


def test_every_contestant_has_its_times_and_a_ratio_to_the_first(capsys):
    sizes = ["--inputs", "32", "--outputs", "48", "--matrices", "3", "--rows", "1", "4", "--repeats", "2"]
    found = matrices.main([*sizes, "--json"])
    assert json.loads(capsys.readouterr().out) == found
    names = ["x @ kernel", "turned", "turned, int8", "x @ turned.T", "PyTorch"]
    assert [(row["rows"], row["name"]) for row in found["rows"]] == [(rows, name) for rows in (1, 4) for name in names]
    assert found["weights"] == 32 * 48 * 3
    for row in found["rows"]:
        assert 0 < row["seconds"]["lowest"] <= row["seconds"]["median"] <= row["seconds"]["highest"]
    assert all(row["times_faster"]["median"] == 1 for row in found["rows"] if row["name"] == "x @ kernel")


def test_the_table_names_machine_and_versions(capsys):
    matrices.main(["--inputs", "16", "--outputs", "16", "--matrices", "2", "--rows", "2", "--repeats", "1"])
    text = capsys.readouterr().out
    assert "jaxlib" in text and "cores of" in text and "| 2 | turned |" in text
