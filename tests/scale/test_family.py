"""The family that laws are fitted to: its task, its sizes, and that it learns."""

import numpy as np
import pytest

from minidalle.data import shapes
from minidalle.scale import cost, family


@pytest.fixture(scope="module")
def world():
    return family.World()


def test_codes_are_of_pictures_that_say_what_the_captions_say(world):
    images, captions = family._draw(40, seed=5)
    examples = world.examples(40, seed=5)
    assert examples.codes.shape == (40, 20) and examples.codes.max() < world.coder.codebook_size == 64
    assert world.tokenizer.decode(examples.text_ids) == captions
    assert all(shapes.agrees(image, caption) for image, caption in zip(images, captions))


def test_other_seeds_give_other_pictures_and_the_same_seed_the_same(world):
    first, again, other = (world.examples(20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.codes, again.codes)
    assert (first.codes != other.codes).mean() > 0.1


def test_parameters_without_tables_are_those_of_layers_and_output(world):
    config = world.member(16)
    rows = world.tokenizer.vocab_size + world.text_length + (64 + 1) + 20
    assert cost.dallebart_parameters(config) - family.multiplying_parameters(config) == 16 * rows


def test_the_schedule_rises_to_its_peak_and_ends_near_nothing():
    rates = family.schedule(200, 0.01)
    assert rates.shape == (200,) and rates.argmax() in (39, 40)
    assert rates.max() == pytest.approx(0.01) and rates[-1] < 1e-5
    assert family.schedule(1, 0.01).shape == (1,)


def test_a_member_learns_and_a_seed_repeats_its_run(world):
    examples, aside = world.examples(32 * 60, seed=1), world.examples(64, seed=2)
    config, rates = world.member(16), family.schedule(60, 0.01)
    run = family.train(config, examples, aside, rates, seed=3)
    again = family.train(config, examples, aside, rates, seed=3)
    assert abs(run.losses[0] - np.log(65)) < 0.7 and run.final < run.losses[0] - 1
    assert run.final == again.final
    assert family.train(config, examples, aside, rates, seed=4).final != run.final


def test_too_few_examples_are_refused(world):
    few = world.examples(40, seed=1)
    with pytest.raises(ValueError, match="2 steps need 64 examples, got 40"):
        family.train(world.member(16), few, few, family.schedule(2, 0.01))


def test_recorded_runs_are_of_this_family(world):
    rows = family.recorded()
    assert len({(row["width"], row["steps"], row["seed"], row["times_rate"]) for row in rows}) == len(rows) >= 15
    for row in rows:
        config = world.member(row["width"])
        assert row["parameters"] == family.multiplying_parameters(config)
        assert row["codes"] == row["steps"] * family.BATCH * config.image_length
        assert row["operations"] == cost.training_operations(config, row["steps"] * family.BATCH)
        assert 0.3 < row["loss"] < np.log(65)
