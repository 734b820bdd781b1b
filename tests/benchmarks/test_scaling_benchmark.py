"""Which runs there are, that none is made twice, and what the table says of them."""

import json

from benchmarks import scaling


def row(task: scaling.Task, loss: float) -> dict:
    sizes = {"parameters": 1000 * task.width, "codes": 640 * task.steps, "operations": 1e9, "loss": loss}
    return task._asdict() | sizes


def test_runs_are_all_different_and_every_size_has_three_seeds():
    tasks = list(scaling.tasks())
    assert len(set(tasks)) == len(tasks)
    for width in (*scaling.WIDTHS, *scaling.LARGER):
        seeds = {task.seed for task in tasks if task[:2] == (width, scaling.STEPS) and task.times_rate == 1}
        assert seeds == set(scaling.SEEDS)


def test_what_stands_in_the_file_is_not_made_again(tmp_path, monkeypatch):
    done = list(scaling.tasks())[:5]
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(json.dumps(row(task, 1.0)) + "\n" for task in done))
    asked = []
    monkeypatch.setattr(scaling, "make", lambda missing, path: asked.extend(missing) or [])
    scaling.main([str(path)])
    assert not set(asked) & set(done) and len(asked) + 5 == len(list(scaling.tasks()))


def test_seeds_stand_side_by_side_behind_their_mean():
    text = scaling.in_a_table([row(scaling.Task(16, 250, seed), loss) for seed, loss in enumerate((1.0, 0.9))])
    (line,) = text.splitlines()[2:]
    assert line == "| 16 | 16,000 | 250 | 1 | 1.00e+09 | 0.9500 | 1.0000, 0.9000 |"
