"""A study's report: it stands alone, says plainly who won, escapes names, and its tables can be read back."""

import csv
import re
from html.parser import HTMLParser

import numpy as np
import PIL.Image
import pytest

from worker.studies import Observation
from worker.studies.document import Heading, Paragraph, Table, as_html, as_markdown
from worker.studies.measures.chance import luck_of
from worker.studies.measures.default_rule import DEFAULT_RULE, chosen_places, with_default_rule
from worker.studies.reports.report import share_of_ceiling, verdict, write_report
from worker.studies.study import StudyResults, section

HOSTILE = "<img src=http://example.org/x onerror=alert(1)> | `$x$` =cmd"
TLOGME = ("tlogme", "backbone.c4", "local")
BOXES = ("logme_boxes", "backbone.c4", "local")
GLOBAL = ("tlogme", "neck.roi", "global")


def observations(agreement=1.0, size=0.0, datasets=("cells", "ships", HOSTILE), candidates=6):
    """`agreement`, `size`: how much of tlogme, and of the number of parameters, is mAP; the rest is noise."""
    rng = np.random.default_rng(0)
    found = []
    for dataset in datasets:
        truth, noise, other = rng.uniform(0.1, 0.6, size=(3, candidates))
        for i in range(candidates):
            scores = {
                TLOGME: float(agreement * truth[i] + (1 - abs(agreement)) * noise[i]),
                BOXES: float(other[i]),
                GLOBAL: float(noise[i]),
            }
            undefined = {}
            if dataset == "ships":
                scores.pop(TLOGME)
                undefined[TLOGME] = "all objects are of one class"
            static = {
                "static_parameters": float(size * truth[i] + (1 - size) * noise[i]),
                "static_coco_map": None,
            }
            found.append(
                Observation(
                    dataset,
                    f"{HOSTILE} {i}",
                    scores,
                    static,
                    {0: float(truth[i]), 1: float(truth[i]) + 0.01 * i},
                    undefined,
                )
            )
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    rows = with_default_rule(observations())
    part = section("all", HOSTILE, ["About & <this>"], rows, bootstrap=100)
    study = StudyResults(
        HOSTILE,
        ("An abstract.",),
        (("budget", HOSTILE),),
        (part,),
        (("Table", HOSTILE, Table(("a",), ((HOSTILE,),))),),
    )
    return write_report(study, tmp_path_factory.mktemp("study"))


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_stands_alone(report):
    text = report.html.read_text(encoding="utf-8")
    page = Reader()
    page.feed(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    references = [
        value for name, value in page.attributes if name in ("src", "href", "srcset", "data", "action")
    ]
    assert references
    assert all(value.startswith("data:image/png;base64,") for value in references)
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in text


def test_names_are_text_and_nothing_else(report):
    page = Reader()
    page.feed(report.html.read_text(encoding="utf-8"))
    assert page.tags.count("img") == len(report.plots), "no picture but our plots"
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert HOSTILE in "".join(page.text)
    markdown = report.markdown.read_text(encoding="utf-8")
    assert "<img" not in markdown.replace("\\<img", "")


def test_the_plots_are_pictures(report):
    assert len(report.plots) >= 4
    for path in report.plots:
        with PIL.Image.open(path) as picture:
            assert picture.width > 300
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_the_tables_can_be_read_back(report):
    with report.observations.open(encoding="utf-8", newline="") as file:
        observed = list(csv.DictReader(file))
    scores = [row for row in observed if row["name"] == "tlogme" and row["layer"] == "backbone.c4"]
    assert len(scores) == 18
    assert {row["undefined"] for row in scores if row["dataset"] == "ships"} == {
        "all objects are of one class"
    }
    assert all(np.isfinite(float(row["value"])) for row in scores if not row["undefined"])
    with report.correlations.open(encoding="utf-8", newline="") as file:
        said = list(csv.DictReader(file))
    average = [
        row
        for row in said
        if row["dataset"] == "average"
        and row["metric"] == "tlogme"
        and row["layer"] == "backbone.c4"
        and row["measure"] == "pearson"
    ]
    assert [row["n"] for row in average] == ["2"]
    assert "ships: 0 candidates" in average[0]["excluded"]
    assert not any((row["value"] or "").lower() in ("nan", "inf") for row in said)


def test_text_that_would_run_in_a_spreadsheet_is_inert(tmp_path):
    rows = [Observation("=1+1", f"@{i}", {TLOGME: -float(i)}, {}, {0: i / 10}) for i in range(4)]
    files = write_report(StudyResults("t", (), (), (section("s", "S", [], rows, bootstrap=10),)), tmp_path)
    for path in (files.observations, files.correlations):
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not any(cell.startswith(("=", "@")) for cell in cells)
        assert not any(cell.startswith("'-") for cell in cells), "numbers stay numbers"


def test_it_is_said_plainly_when_no_metric_beats_the_baseline():
    rows = observations(agreement=-1.0, size=1.0, datasets=("cells", "cards", "plates"))
    said = " ".join(verdict(section("s", "Everything", [], rows, bootstrap=200)))
    assert "No metric beats it." in said
    assert "parameters (static)" in said


def test_a_clear_winner_is_named_with_what_luck_would_do():
    rows = observations(agreement=1.0, size=0.0, datasets=("cells", "cards", "plates", "craters"))
    said = " ".join(verdict(section("s", "Everything", [], rows, bootstrap=200)))
    assert "tlogme at backbone.c4, local has the highest average weighted tau, 1.00" in said
    assert "with an interval of the paired difference above zero: tlogme at backbone.c4, local" in said
    assert "dealt out at random" in said
    assert "Noise ceiling" in said


def test_a_share_of_the_ceiling_is_of_the_datasets_that_have_both():
    found = section("s", "S", [], observations(), bootstrap=0).correlations
    pairs = [
        (found.per_dataset[d][TLOGME]["weighted_tau"].value, found.ceiling[d]["weighted_tau"].value)
        for d in ("cells", HOSTILE)
    ]
    assert share_of_ceiling(found, TLOGME) == pytest.approx(
        sum(t for t, _ in pairs) / sum(c for _, c in pairs)
    )
    alone = [
        Observation(o.dataset, o.candidate, o.scores, o.static, {0: o.map}, o.undefined)
        for o in observations()
    ]
    assert share_of_ceiling(section("s", "S", [], alone, bootstrap=0).correlations, TLOGME) is None


def test_luck_of_noise_is_about_even_and_grows_with_the_number_of_scores():
    rng = np.random.default_rng(5)
    places = [("m", f"layer{i}", "local") for i in range(40)]
    rows = [
        Observation(d, str(c), {p: float(rng.normal()) for p in places}, {}, {0: float(rng.uniform())})
        for d in "abc"
        for c in range(7)
    ]
    many, one = luck_of(rows, places, draws=300), luck_of(rows, places[:1], draws=300)
    assert one.median == pytest.approx(0, abs=0.1)
    assert many.median > 0.35
    assert 0.02 < many.share < 0.98
    assert luck_of([Observation("d", "c", {}, {}, {0: 1.0})], places) is None


def test_the_default_rule_is_what_the_service_would_order_by():
    rows = observations()
    assert chosen_places(rows) == {"cells": TLOGME, "ships": BOXES, HOSTILE: TLOGME}
    found = with_default_rule(rows)
    assert all(o.scores[DEFAULT_RULE] == o.scores[BOXES if o.dataset == "ships" else TLOGME] for o in found)
    empty = with_default_rule([Observation("d", "c", {}, {}, {0: 0.1}, {TLOGME: "NaN features"})])
    assert empty[0].undefined[DEFAULT_RULE] == "NaN features"


def test_the_default_rule_orders_by_gains_at_the_map_that_fits_where_they_are_known():
    def made(name, pixels, gain):
        scores = {
            (m, layer, "local"): 1.0
            for m in ("tlogme", "detection_evidence_single")
            for layer in ("backbone.c3", "backbone.c4")
        }
        gains = {
            ("gain of detection_evidence_single", layer, "local"): gain
            for layer in ("backbone.c3", "backbone.c4")
        }
        return Observation("d", name, scores | (gains if gain else {}), {}, {0: 0.1}, object_pixels=pixels)

    gain = "gain of detection_evidence_single"
    assert chosen_places([made("a", 15.0, 0.5), made("b", 15.0, 0.25)]) == {
        "d": (gain, "backbone.c3", "local")
    }
    assert chosen_places([made("a", 60.0, 0.5), made("b", 60.0, 0.25)]) == {
        "d": (gain, "backbone.c4", "local")
    }
    some = chosen_places([made("a", 60.0, 0.5), made("b", 60.0, None)])
    assert some == {"d": ("detection_evidence_single", "backbone.c4", "local")}
    assert [
        o.scores[DEFAULT_RULE] for o in with_default_rule([made("a", 60.0, 0.5), made("b", 60.0, 0.25)])
    ] == [0.5, 0.25]


def test_blocks_in_both_languages():
    blocks = [
        Heading("H & <b>"),
        Paragraph("a*b_c"),
        Table(("x|y", "n"), (("p|q", "0.5"), ("r\ns", "–")), frozenset({1})),
    ]
    page = as_html("T", blocks)
    assert "<h2>H &amp; &lt;b&gt;</h2>" in page
    assert '<td class="number">0.5</td>' in page
    assert '<tr class="strong"><td>r\ns</td>' in page
    text = as_markdown("T", blocks)
    assert r"a\*b\_c" in text
    assert r"| p\|q | 0.5 |" in text
    assert "| **r s** | **–** |" in text
