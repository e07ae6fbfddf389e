"""Where computing the frozen layers once pays."""

import pytest
from stored_features import extraction_of
from tiny import SIZE

from ktl.features.extraction import Views
from ktl.features.policy import worth_caching


@pytest.mark.parametrize(
    ("asked", "depth", "epochs", "trainings", "views", "limit", "use", "reason"),
    [
        ("off", "all", 30, 1, 1, 1e12, False, "as asked"),
        ("on", "none", 30, 1, 1, 1e12, False, "nothing is frozen"),
        ("auto", "all", 30, 1, 1, 10, False, "more than the limit"),
        ("on", "all", 30, 1, 1, 10, False, "more than the limit"),
        ("auto", "all", 30, 1, 1, 1e12, True, "30.0 times less"),
        ("auto", "all", 8, 1, 4, 1e12, True, "2.0 times less"),
        ("auto", "all", 4, 1, 4, 1e12, False, "would not pay"),
        ("auto", "all", 4, 5, 4, 1e12, True, "5.0 times less"),
        ("on", "all", 4, 1, 4, 1e12, True, "1.0 times less"),
    ],
)
def test_auto_caches_where_it_pays_and_says_why(
    classifier, dataset, asked, depth, epochs, trainings, views, limit, use, reason
):
    extraction = extraction_of(classifier, dataset, depth, views=Views(SIZE, "standard", views))
    found, why = worth_caching(asked, extraction, passes=epochs * trainings, limit_bytes=int(limit))
    assert (found, reason in why) == (use, True), why


def test_the_gain_is_that_of_the_formula(classifier, dataset):
    """An epoch without the cache: one pass forward and two back through what is not frozen."""
    extraction = extraction_of(classifier, dataset, "block_relu", views=Views(SIZE, "standard", 3))
    frozen = extraction.boundary.cost_share
    assert 0.2 < frozen < 0.9
    trained = 5 * 7
    without = trained * (frozen + 3 * (1 - frozen))
    with_cache = 3 * frozen + trained * 3 * (1 - frozen)
    _, why = worth_caching("auto", extraction, passes=trained, limit_bytes=1e12)
    assert f"about {without / with_cache:.1f} times" in why
    assert why.startswith(f"{extraction.nbytes / 2**20:.2f} MiB for ")
