"""How a page writes numbers and names."""

from ktl.reporting import formatting


def test_two_data_sets_of_one_name_are_told_apart():
    assert formatting.short_names(["/a/photos", "/b/photos", "/a/photos", "cifar10"]) == {
        "/a/photos": "/a/photos",
        "/b/photos": "/b/photos",
        "cifar10": "cifar10",
    }


def test_numbers_have_a_unit_and_a_sign():
    assert formatting.percent(0.12345) == "12.3\u00a0%"
    assert formatting.interval((0.1, 0.25)) == "10.0 to 25.0\u00a0%"
    assert [formatting.points(value) for value in (0.0123, -0.5, -0.0001)] == ["+1.2", "-50.0", "+0.0"]


def test_settings_in_words():
    values = [None, True, False, 0.001, 10, "all"]
    assert [formatting.setting(value) for value in values] == ["not given", "yes", "no", "0.001", "10", "all"]
