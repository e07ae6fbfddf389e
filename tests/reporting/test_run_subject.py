"""Which test photos a page shows."""

import itertools

import numpy as np
from html_page import HtmlPage as Page
from made_up_folders import made_up, write_run

from ktl.config.settings import RunConfig
from ktl.reporting.page import write_report


def test_the_number_of_photos_is_bounded_and_said(tmp_path):
    probabilities, labels = made_up(500, 3)
    write_run(
        tmp_path / "run",
        RunConfig(dataset="/gone"),
        class_names="abc",
        photos=[f"{number}.jpg" for number in range(500)],
        validation=made_up(9, 3),
        test=(probabilities, labels),
    )
    page = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html"))
    assert len({span.text for span in page.root.all("span", kind="file")}) == 200
    assert "200 of 500 test photos" in page.section("confusion").text
    for i, j in itertools.product(range(3), repeat=2):
        panel = page.root.one("div", id=f"pair-{i}-{j}")
        count, shown = np.sum((labels == i) & (probabilities.argmax(axis=1) == j)), len(panel.all("figure"))
        assert shown > 10  # each has its turn
        assert f": {count} photos" in panel.text
        assert (f"{shown} of them here" in panel.text) == (shown < count)


def test_a_number_without_photos_in_the_page_opens_nothing_and_the_page_says_so(tmp_path):
    probabilities, labels = made_up(600, 3, sure=1.0)
    assert np.sum(probabilities.argmax(axis=1) != labels) > 200
    write_run(
        tmp_path / "run",
        RunConfig(dataset="/gone"),
        class_names="abc",
        photos=[f"{number}.jpg" for number in range(600)],
        validation=made_up(9, 3),
        test=(probabilities, labels),
    )
    section = Page(write_report([tmp_path / "run"], output=tmp_path / "report.html")).section("confusion")
    opened = {tuple(link.attributes["href"].split("-")[1:]) for link in section.one("table").all("a")}
    assert opened == {(i, j) for i, j in itertools.product("012", repeat=2) if i != j}
    assert "mistakes first; a number with none of them opens nothing" in section.text
