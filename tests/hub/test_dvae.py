"""OpenAI's discrete VAE loads from plain state dicts alone; what it then computes is in `test_parity`."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from minidalle.hub.dvae import load_dvae

FIXTURE = Path(__file__).parents[1] / "fixtures" / "openai_dvae"


@pytest.fixture(scope="module")
def recorded():
    return {name: torch.from_numpy(array) for name, array in np.load(FIXTURE / "io.npz").items()}


@pytest.fixture(scope="module")
def dvae():
    return load_dvae(FIXTURE)


@pytest.fixture
def copied(tmp_path):
    for name in ("encoder.pt", "decoder.pt"):
        shutil.copyfile(FIXTURE / name, tmp_path / name)
    return tmp_path


def test_codes_may_be_given_as_a_row_or_as_a_map(dvae, recorded):
    assert torch.equal(dvae.decode(recorded["z"].flatten(1)), dvae.decode(recorded["z"]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.encode(torch.zeros(1, 3, 12, 16)), "sides in eights"),
        (lambda model: model.decode(torch.zeros(1, 3, dtype=int)), "3 codes are not a square map"),
        (lambda model: model.decode(torch.full((1, 4), 48)), r"codes must lie in \[0, 48\), got 48 to 48"),
    ],
)
def test_wrong_input_is_refused(dvae, call, message):
    with pytest.raises(ValueError, match=message):
        call(dvae)


def test_a_pickled_module_is_not_opened(copied):
    (copied / "encoder.pt").write_bytes(pickle.dumps(Path("/"), protocol=2))
    with pytest.raises(ValueError, match="could run any code"):
        load_dvae(copied)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.output.conv.w", "encoder.output.weight is missing"),
        ("blocks.group_2.block_1.id_path.b", 'Missing key.*"encoder.groups.1.0.id_path.bias"'),
    ],
)
def test_half_a_state_dict_is_refused_by_name(copied, name, message):
    state = torch.load(copied / "encoder.pt", weights_only=True)
    del state[name]
    torch.save(state, copied / "encoder.pt")
    with pytest.raises(ValueError, match=message):
        load_dvae(copied)
    (copied / "decoder.pt").unlink()
    with pytest.raises(FileNotFoundError, match="decoder.pt does not exist"):
        load_dvae(copied)
