"""What a recipe's [train] says reaches the optimizer and the loop, each value where it belongs."""

from minidalle.training import settings


def test_settings_reach_the_optimizer_and_the_loop(monkeypatch):
    calls = {}
    monkeypatch.setattr(settings, "make_optimizer", lambda *given, **named: calls.update(optimizer=(given, named)))
    monkeypatch.setattr(settings, "fit", lambda *given, **named: calls.update(fit=(given, named)))
    recipe = {
        "optimizer": "muon", "learning_rate": 0.1, "steps": 9, "warmup_steps": 2, "weight_decay": 0.3, "clip_norm": 4.0,
        "save_every": 5, "log_every": 6, "evaluate_every": 7, "ema_decay": 0.0, "batch_size": 8,
    }  # fmt: skip
    settings.fit_with(recipe | {"stop_at": 3, "accumulate": 2}, "loss", "model", "batches", run_dir="here", seed=1)
    rule = {"learning_rate": 0.1, "steps": 9, "warmup_steps": 2, "weight_decay": 0.3, "clip_norm": 4.0}
    assert calls["optimizer"] == (("muon",), rule | {"accumulate": 2})
    rhythm = {"save_every": 5, "log_every": 6, "evaluate_every": 7, "ema_decay": None}
    assert calls["fit"] == (("loss", "model", None, "batches"), rhythm | {"steps": 3, "run_dir": "here", "seed": 1})
    settings.fit_with(recipe | {"stop_at": 0, "ema_decay": 0.9}, "loss", "model", "batches")
    assert calls["optimizer"][1]["accumulate"] == 1
    assert calls["fit"][1]["steps"] == 9 and calls["fit"][1]["ema_decay"] == 0.9
