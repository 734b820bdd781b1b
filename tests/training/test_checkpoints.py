"""Checkpoints hold what was saved, on whatever devices they are read, and say when they do not."""

import os
import shutil
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from minidalle.training.checkpoints import Checkpoints
from minidalle.training.fingerprint import checksum, fingerprints

# Simulated devices are chosen before the first use of JAX, so each part runs in a process of its own.
SHARDED = """
import sys, warnings
import jax
devices, folder = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_num_cpu_devices", devices)
import jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from minidalle.training.checkpoints import Checkpoints
from minidalle.training.fingerprint import fingerprints

mesh = jax.make_mesh((devices // 2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
random = np.random.default_rng(0)
host = {
    "weight": random.normal(size=(16, 8)).astype(np.float32),
    "half": jnp.asarray(random.normal(size=(8, 4)), jnp.bfloat16),
    "codes": random.integers(0, 9, (8,)).astype(np.int32),
    "step": np.int32(7),
}
specs = {"weight": P("data", "model"), "half": P(None, "model"), "codes": P("data"), "step": P()}
shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
checkpoints = Checkpoints(folder)
if sys.argv[3] == "save":
    for step in (1, 2):
        arrays = {name: jax.device_put(array, shardings[name]) for name, array in host.items()}
        arrays["weight"] = arrays["weight"] + step
        arrays["key"] = jax.device_put(jax.random.key(step), NamedSharding(mesh, P()))
        checkpoints.save(step, arrays, {"seconds": 1.5})
else:
    like = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=shardings[name]) for name, array in host.items()
    }
    like["key"] = jax.device_put(jax.random.key(0), NamedSharding(mesh, P()))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        step, arrays, values = checkpoints.restore(like)
    print("said", [str(warning.message) for warning in said if "cannot be read" in str(warning.message)])
    print("step", step, values)
    for name, spec in specs.items():
        expected = host[name] + step if name == "weight" else host[name]
        np.testing.assert_array_equal(np.asarray(arrays[name]), np.asarray(expected))
        assert arrays[name].sharding == shardings[name], arrays[name].sharding
    np.testing.assert_array_equal(jax.random.key_data(arrays["key"]), jax.random.key_data(jax.random.key(step)))
checkpoints.close()
"""


def python(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(child):
    said, wrong = child.communicate(timeout=600)
    assert child.returncode == 0, wrong[-3000:]
    return said


def flip(folder):
    """Change one bit in the middle of every file of arrays."""
    for path in folder.rglob("*"):
        if path.parent.name == "d" and path.is_file():
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0x10
            path.write_bytes(content)


def test_saved_on_eight_devices_it_is_restored_on_two_and_a_flipped_bit_is_found(tmp_path):
    finished(python(SHARDED, 8, tmp_path / "run", "save"))
    said = finished(python(SHARDED, 2, tmp_path / "run", "restore"))
    assert "said []\nstep 2 {'seconds': 1.5}" in said
    flip(tmp_path / "run" / "2")
    said = finished(python(SHARDED, 4, tmp_path / "run", "restore"))
    assert "checkpoint at step 2 cannot be read" in said
    assert "going on from step 1" in said
    assert "step 1 {'seconds': 1.5}" in said
    assert (tmp_path / "broken-2").is_dir()


# Two processes of two devices each; the second cannot read the latest checkpoint.
TWO_PROCESSES = """
import sys, warnings
import jax
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, rank)
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from minidalle.training import checkpoints as module

mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
host = np.arange(32, dtype=np.float32).reshape(8, 4)

def spread(array, *spec):
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, P(*spec)), lambda index: array[index])

checkpoints = module.Checkpoints(folder)
for step in (1, 2):
    checkpoints.save(step, {"weight": spread(host + step, "data"), "step": spread(np.int32(step))}, {})
checkpoints.wait()

read = module._read
def failing(path, like):
    if rank == 1 and path.name == "2":
        raise OSError("the disk of this machine is gone")
    return read(path, like)

module._read = failing
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    step, arrays, _ = checkpoints.restore({"weight": spread(host, None, "data"), "step": spread(np.int32(0))})
print(step, *[str(warning.message) for warning in said if "cannot be read" in str(warning.message)])
for shard in arrays["weight"].addressable_shards:
    np.testing.assert_array_equal(shard.data, (host + step)[shard.index])
checkpoints.close()
"""


def test_processes_agree_on_the_checkpoint_although_one_cannot_read_the_latest(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    children = [python(TWO_PROCESSES, rank, port, tmp_path / "run") for rank in (0, 1)]
    first, second = map(finished, children)
    assert "1 the checkpoint at step 2 cannot be read (another process cannot read it)" in first
    assert "1 the checkpoint at step 2 cannot be read (OSError: the disk of this machine is gone)" in second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken-2", "run"]


def test_what_is_saved_is_what_stood_there_although_the_next_step_overwrites_it(tmp_path):
    advance = jax.jit(lambda array: array * 1.0001 + 1, donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, keep=8)
    array = jnp.zeros((512, 512))
    kept = []
    for step in range(6):
        kept.append(np.array(array))
        checkpoints.save(step, {"array": array}, {})
        for _ in range(5):
            array = advance(array)
    checkpoints.wait()
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(6))
    reader = ocp.StandardCheckpointer()  # without our fingerprints
    for step, expected in enumerate(kept):
        np.testing.assert_array_equal(reader.restore(tmp_path / str(step) / "arrays")["array"], expected)
    checkpoints.close()


def test_a_run_folder_of_an_older_version_is_read_and_its_checksum_kept(tmp_path):
    stored = {"weight": np.arange(6.0, dtype=np.float32), "step": np.full(1, 4, np.int32)}

    def write(folder, checksum):
        manager = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(create=True))
        values = {"seconds": 2.0, "checksum": checksum}
        arguments = ocp.args.Composite(arrays=ocp.args.StandardSave(stored), values=ocp.args.JsonSave(values))
        manager.save(4, args=arguments)
        manager.close()

    like = {"weight": jnp.zeros(6), "step": jnp.zeros((), jnp.int32)}
    write(tmp_path / "good", checksum(stored))
    step, arrays, values = Checkpoints(tmp_path / "good").restore(like)
    assert (step, values, int(arrays["step"])) == (4, {"seconds": 2.0}, 4)
    np.testing.assert_array_equal(arrays["weight"], stored["weight"])
    write(tmp_path / "spoiled", checksum(stored) ^ 1)
    with pytest.raises(ValueError, match=r"none of the checkpoints .*step 4: .*checksum differs"):
        Checkpoints(tmp_path / "spoiled").restore(like)


def test_bytes_that_changed_without_a_storage_layer_noticing_are_found(tmp_path):
    spoiled = np.ones((4, 4), np.float32)
    spoiled[2, 1] = np.nextafter(np.float32(1), np.float32(2))
    for name, array in (("written", np.ones((4, 4), np.float32)), ("spoiled", spoiled)):
        checkpoints = Checkpoints(tmp_path / name)
        checkpoints.save(1, {"array": jnp.asarray(array)}, {})
        checkpoints.close()
    shutil.rmtree(tmp_path / "written" / "1" / "arrays")
    shutil.copytree(tmp_path / "spoiled" / "1" / "arrays", tmp_path / "written" / "1" / "arrays")
    with pytest.raises(ValueError, match="fingerprint differs: array"):
        Checkpoints(tmp_path / "written").restore({"array": jnp.zeros((4, 4))})
    Checkpoints(tmp_path / "spoiled").restore({"array": jnp.zeros((4, 4))})


def test_a_value_that_changed_on_the_disk_is_found(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, {"array": jnp.ones(3)}, {"best_score": 1.25})
    checkpoints.wait()
    (file,) = (path for path in (tmp_path / "3" / "values").rglob("*") if b"best_score" in path.read_bytes())
    file.write_text(file.read_text().replace("1.25", "1.35"))
    with pytest.raises(ValueError, match="checksum of its values differs"):
        checkpoints.restore({"array": jnp.ones(3)})
    checkpoints.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_any_single_changed_element_changes_the_fingerprint(dtype):
    array = np.zeros((3, 5), jnp.dtype(dtype))
    variants = {"none": array}
    for place in np.ndindex(array.shape):
        variants[str(place)] = array.copy()
        variants[str(place)][place] = 1
    numbers = fingerprints({name: jnp.asarray(variant) for name, variant in variants.items()})
    assert len(set(numbers.values())) == array.size + 1


def test_exchanged_elements_and_signs_of_zero_change_the_fingerprint():
    numbers = fingerprints(
        {"a": jnp.array([1.0, 2.0]), "b": jnp.array([2.0, 1.0]), "c": jnp.array([0.0, -0.0]), "d": jnp.zeros(2)}
    )
    assert len(set(numbers.values())) == 4
