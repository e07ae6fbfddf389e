"""`ktl.run` and `ktl.search` leave the process as they found it."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import config as framework_config

import ktl
from ktl.errors import UserError


def state() -> dict:
    """What whoever calls ktl in the middle of other work relies on."""
    return {
        "policy": keras.config.dtype_policy().name,
        "floatx": keras.config.floatx(),
        "format": keras.config.image_data_format(),
        "epsilon": keras.config.epsilon(),
        "filtering": keras.config.is_traceback_filtering_enabled(),
        "logging": keras.config.is_interactive_logging_enabled(),
        "flash": keras.config.is_flash_attention_enabled(),
        "limits": (keras.config.max_epochs(), keras.config.max_steps_per_epoch()),
        "python": random.getstate(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "tensorflow": context.global_seed(),
        "deterministic": framework_config.is_op_determinism_enabled(),
        "optimizer": tf.config.optimizer.get_experimental_options(),
        "strategy": tf.distribute.has_strategy(),
    }


@pytest.fixture
def begun():
    """Other work: it has seeds, a policy, a layer with a number in its name, and a random number on the way."""
    keras.utils.set_random_seed(11)
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.disable_traceback_filtering()
    random.random()
    np.random.rand()
    keras.backend.clear_session()
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")
    keras.config.set_epsilon(1e-3)
    keras.layers.Dense(1)
    yield
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.enable_traceback_filtering()
    keras.config.set_dtype_policy("float32")


SETTINGS = {"epochs": 1, "least_steps": 1, "cache": "off", "verbose": 0, "precision": "float32", "seed": 5}


@pytest.mark.usefixtures("begun")
def test_a_run_leaves_the_process_as_it_found_it(tiny_backbone, photo_folder, tmp_path):
    settings = {"deterministic": True, "precision": "mixed_float16"}
    before = state()
    arguments = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), **SETTINGS, **settings}
    ktl.run(output=tmp_path, **arguments)
    assert state() == before
    assert keras.layers.Dense(1).name == "dense_1"  # as if nothing had been


@pytest.mark.usefixtures("begun")
def test_so_does_a_search(tiny_backbone, photo_folder, tmp_path):
    before = state()
    arguments = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), **SETTINGS, "freeze_depth": "all"}
    ktl.search(output=tmp_path, space={"scale": [5.0]}, seeds=1, deterministic=True, **arguments)
    assert state() == before
    assert keras.layers.Dense(1).name == "dense_1"


@pytest.mark.usefixtures("begun")
def test_so_does_a_run_that_fails(tiny_backbone, photo_folder, tmp_path):
    before = state()
    arguments = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), **SETTINGS, "deterministic": True}
    with pytest.raises(UserError, match="finite loss"):
        ktl.run(output=tmp_path, learning_rate=1e37, **arguments)
    assert state() == before
    assert keras.layers.Dense(1).name == "dense_1"


def test_a_user_s_determinism_stays(tiny_backbone, photo_folder, tmp_path, without_determinism_afterwards):
    keras.utils.set_random_seed(1)
    tf.config.experimental.enable_op_determinism()
    before = state()
    ktl.run(dataset=str(photo_folder), backbone=str(tiny_backbone), output=tmp_path, **SETTINGS)
    assert framework_config.is_op_determinism_enabled()
    assert state() == before


def test_a_model_that_was_there_before_goes_on(tiny_backbone, photo_folder, tmp_path):
    pixels, labels = np.random.default_rng(0).random((8, 4)).astype("float32"), np.arange(8) % 2

    def made():
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(pixels, labels, verbose=0)
        return model

    alone, interrupted = made(), made()
    ktl.run(dataset=str(photo_folder), backbone=str(tiny_backbone), output=tmp_path, **SETTINGS)
    for model in (alone, interrupted):
        np.random.seed(3)  # of the order of photos
        keras.utils.set_random_seed(3)
        model.fit(pixels, labels, epochs=2, verbose=0)
    for variable, expected in zip(interrupted.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(variable, expected)


def test_the_numbers_of_a_run_do_not_depend_on_the_process(tiny_backbone, photo_folder, tmp_path):
    """Its seeds are its own."""
    results = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        for _ in range(seed):
            keras.layers.Dense(3)
        arguments = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), **SETTINGS}
        results.append(ktl.run(output=tmp_path / str(seed), **arguments))
    assert results[0]["test"] == results[1]["test"]
    assert results[0]["validation"] == results[1]["validation"]
