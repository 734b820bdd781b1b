import platform
import re

import jax
import pytest
import torch

import minidalle
from minidalle.show import about, hosted_on


def hosts(monkeypatch, **present):
    for name in ("COLAB_RELEASE_TAG", "PAPERSPACE_FQDN", "PAPERSPACE_NOTEBOOK_REPO_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in present.items():
        monkeypatch.setenv(name, value)


def test_two_lines_name_versions_and_devices(monkeypatch, capsys):
    hosts(monkeypatch)
    about()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert minidalle.__version__ in lines[0] and platform.python_version() in lines[0]
    assert f"JAX {jax.__version__} on" in lines[1]
    assert re.search(rf"PyTorch {re.escape(torch.__version__.split('+')[0])} on", lines[1])


@pytest.mark.skipif(torch.cuda.is_available() or jax.default_backend() != "cpu", reason="there is a GPU here")
@pytest.mark.parametrize(
    "variable, place, advice",
    [("COLAB_RELEASE_TAG", "Colab", "Change runtime type"), ("PAPERSPACE_FQDN", "Paperspace", "Free-GPU")],
)
def test_hosts_without_a_gpu_are_told_how_to_switch(monkeypatch, capsys, variable, place, advice):
    hosts(monkeypatch, **{variable: "x"})
    assert hosted_on() == place
    about()
    assert advice in capsys.readouterr().out


def test_a_jax_that_does_not_start_is_reported_not_raised(monkeypatch, capsys):
    hosts(monkeypatch)
    monkeypatch.setattr(jax, "devices", lambda: (_ for _ in ()).throw(RuntimeError("no CUDA here\nlong trace")))
    about()
    assert "JAX does not start (RuntimeError: no CUDA here)" in capsys.readouterr().out
