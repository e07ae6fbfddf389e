"""Settings that need more memory than there is are refused before any of it is taken."""

import resource

import pytest
from support import one_line
from tiny import inputs_of, tiny_classifier

import ktl
from ktl import memory
from ktl.errors import UserError
from ktl.memory import check_memory, free_memory, size_in_words
from ktl.models.backbones import build_backbone
from ktl.training.options import Caching


def test_some_memory_is_free_and_no_more_than_there_is():
    free = free_memory()
    with open("/proc/meminfo") as file:
        total = sum(int(line.split()[1]) * 1024 for line in file if line.startswith(("MemTotal:", "SwapTotal:")))
    assert 2**20 < free <= total


def test_what_fits_is_no_matter_and_what_does_not_is_named(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 3 * 2**30)
    check_memory(3 * 2**30, setting="`a` 1")
    with pytest.raises(UserError) as error:
        check_memory(7 * 2**30, setting="`a` 1")
    assert "3.0 GiB are free. Received: `a` 1, which takes 7.0 GiB at least" in one_line(error)
    monkeypatch.setattr(memory, "free_memory", lambda: None)  # of a system that does not say
    check_memory(7 * 2**60, setting="`a` 1")


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"batch_size": 10**8}, r"`batch_size` 100000000 with `image_size` 42"),
        (
            {"views": 10**9, "augmentation": "standard", "caching": Caching(mode="on")},
            r"`views` 1000000000 of \d+ photos, of which `cache` keeps a list",
        ),
        ({"least_steps": 10**10}, r"`least_steps` 10000000000 with `batch_size` 5"),
    ],
)
def test_a_training_that_cannot_fit_is_refused(tiny_backbone, settings, setting):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=f"Received: {setting}, which takes [0-9,.]+ GiB at least") as error:
        inputs_of(tiny_classifier(tiny_backbone), **settings)
    one_line(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def test_so_are_new_layers_and_photos(tiny_backbone):
    with pytest.raises(UserError, match=r"Received: `hidden_units` 1000000000, which takes") as error:
        tiny_classifier(tiny_backbone, hidden_units=10**9)
    one_line(error)
    with pytest.raises(UserError, match=r"Received: `image_size` 1000000, which takes [0-9,]+\.\d GiB") as error:
        build_backbone("mobilenet_0.25", weights="random", image_size=10**6)
    one_line(error)


@pytest.mark.parametrize("head", ["kept", "replaced", "kept_beside", "kept_softmax_beside"])
def test_new_layers_are_counted_with_all_that_the_head_reads(tiny_backbone, head):
    """Two kernels, before and behind the hidden layer, their gradients and two momenta, in float32."""
    classifier = tiny_classifier(tiny_backbone, head=head)
    width = classifier.new_layers[-1].input.shape[-1] + len(classifier.class_names)
    with pytest.raises(UserError, match=rf"takes {4 * 4 * 10**9 * width / 2**30:,.1f} GiB at least"):
        tiny_classifier(tiny_backbone, head=head, hidden_units=10**9)


@pytest.mark.parametrize(
    "setting",
    [
        {"image_size": 32_000, "backbone": "mobilenet_0.25", "weights": "random"},
        {"hidden_units": 10**8},
        {"epochs": 10**13},
    ],
)
def test_a_run_is_refused_in_one_line_and_leaves_nothing(photo_folder, tiny_backbone, tmp_path, setting):
    common = {"dataset": str(photo_folder), "backbone": str(tiny_backbone)}
    with pytest.raises(UserError, match="GiB at least") as error:
        ktl.run(**{**common, **setting}, output=tmp_path / "out", verbose=0)
    assert next(iter(setting)) in one_line(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (712, "712 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.00 KiB"),
        (6_200_000, "5.91 MiB"),
        (62_000_000, "59.1 MiB"),
        (620_000_000, "591 MiB"),
        (1023 * 2**30, "1,023 GiB"),
        (5 * 2**40, "5.00 TiB"),
    ],
)
def test_a_number_of_bytes_has_a_unit_of_its_size(size, words):
    assert size_in_words(size) == words
