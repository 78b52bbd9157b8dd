"""The page for the surgeon: its numbers are the result's, it names nobody, loads nothing, and takes no markup."""

from __future__ import annotations

import base64
import copy
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from spineimg.anatomy import Role
from spineimg.errors import SpineImgError
from spineimg.export import report_charts as charts
from spineimg.export.json import result_to_dict
from spineimg.export.report import make_report, read_results, write_html, write_pdf
from spineimg.export.report_reading import build_page
from spineimg.export.report_values import known_kernel
from spineimg.export.report_words import worth
from spineimg.notes import Note
from spineimg.volume import Acquisition, SeriesInfo
from tests.export.records import CREATED, FLAG, case, filled, lattice, slice_hu, vertebra

SECRET = "Zyxwvut"
VOID = {"meta", "img", "br", "link", "input", "hr", "image", "line", "circle", "rect", "path"}


class Page(HTMLParser):
    """Tags as they are opened, and whether every one is closed in turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def planes(z, means):
    positions = ("superior", "mid", "inferior")
    return tuple(
        slice_hu(p, mean, center_lps_mm=(0.0, 0.0, z + dz))
        for p, mean, dz in zip(positions, means, (7, 0, -7), strict=True)
    )


def a_case(**changes):
    low = vertebra("L1", Role.LIV, planes(-20.0, (131.5, 130.5, 129.5)), FLAG)
    top = vertebra("T12", Role.UIV, planes(20.0, (152.25, 150.0, 149.0)), None)
    return case(top, low, **changes)


def a_result(**changes):
    return json.loads(json.dumps(result_to_dict(a_case(**changes), CREATED)))


def a_screw(name="L1-left", **changes):
    level, side = name.split("-")
    halo = {
        "assessable": True,
        "width_median_mm": 1.52,
        "width_p90_mm": 2.04,
        "coverage_over_1mm": 0.64,
        "axial_extent_mm": 21.0,
        "interval_mm": [1.22, 1.83],
        "reason": "",
        "map": {
            "depths_mm": [0.5, 1.5, 2.5],
            "angles_deg": [0.0, 90.0, 180.0, 270.0],
            "width_mm": [[0.1, 0.7, 1.2, 3.0], [0.1, 0.7, 1.2, None], [0.1, 0.7, 1.7, 3.0]],
            "sd_mm": [[0.1] * 4] * 3,
        },
    }
    screw = {
        "id": name,
        "level": level,
        "side": side,
        "head": [20.0, 30.0, -20.0],
        "tip": [10.0, -10.0, -18.0],
        "diameter_mm": 6.5,
        "length_mm": 41.3,
        "halo": halo,
        "loosening": "present",
        "notes": [],
    }
    return screw | changes


def with_screws(*screws):
    grade = {"silva_type": 1, "text": "Silva type 1", "construct": {"uiv": "T12", "liv": "L1"}}
    return a_result() | {"screws": list(screws), "grade": grade}


def page_of(result, **options):
    return make_report(build_page([("r.json", result)]), **options).html


def a_volume():
    return filled(lattice("head first supine"), lambda p: 100.0 + p[..., 2])


def a_matching_case(**changes):
    geometry = lattice("head first supine")
    return a_case(n_slices=geometry.shape[0], spacing_mm=geometry.spacing_mm, **changes)


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_result():
    """LIV and UIV with value, interval, flag and planes. Planted: the pooled mean as the mean; roles swapped."""
    result = a_result()
    result["vertebrae"][0]["pooled_mean_hu"] = 777.7
    text = Page(page_of(result)).text
    assert "LIV L1 · lowest instrumented vertebra 130.5 HU Indeterminate" in text
    assert "UIV T12 · upper instrumented vertebra 150.4 HU" in text
    assert "104.2 to 146.5 HU" in text or "104.3 to 146.5 HU" in text
    assert "152 / 150 / 149" in text
    assert "Construct T12 to L1" in text
    assert "777.7" not in text
    assert "no cutoff is published for the UIV" in text


def test_cutoff_has_both_published_versions():
    """PPV and NPV at 24 of 220, by Bayes from the printed rates. Planted: prevalence of the matched sample, 25 %."""
    text = Page(page_of(a_result())).text
    for value in ("59.1%", "73.4%", "69.6%", "73.6%", "21.4%", "93.6%", "24.4%", "95.2%", "24 of 220", "10.9 %"):
        assert value in text
    rows = worth(build_page([("r.json", a_result())]).cutoff)
    # 1000 x 24/220 x 0.696 = 76 with a failure, 1000 x 196/220 x 0.264 = 235 without, 33 missed
    assert re.search(r"76 of them with a failure and 235 without; 33 failures", rows[1]["words"])


def test_interval_strip_and_profile_lie_where_the_numbers_say():
    """Positions in the drawings are linear in HU and in mm. Planted: profile drawn from the foot up."""
    page = build_page([("r.json", a_result())])
    strip = charts.interval_strip(page.role("LIV").flag, 130.5)
    x, width = (float(v) for v in re.search(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', strip).groups())
    cut = float(re.search(r'<line x1="([\d.]+)"[^>]*stroke-dasharray="1.2', strip)[1])
    assert (cut - x) / width == pytest.approx((127.273 - 104.25) / (146.5 - 104.25), abs=0.002)
    view = charts.overview(page)
    means = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="1.5"', charts.profile(page, view))
    (x_top, y_top), (x_low, y_low) = [(float(x), float(y)) for x, y in means]  # T12, L1
    assert y_low - y_top == pytest.approx(40.0 * charts.SPINE_HEIGHT_MM / view.size_mm[1], abs=0.02)
    assert x_top > x_low  # 150 HU right of 130 HU


def test_halo_map_puts_depth_across_and_angle_down():
    """Planted: depths and angles swapped; a gap drawn as a narrow halo."""
    page = build_page([("r.json", with_screws(a_screw()))])
    drawn = charts.halo_map(page.screws[0].map, "L1-left")
    data = base64.b64decode(re.search(r"base64,([^\"]+)", drawn)[1])
    pixels = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    height, width = pixels.shape[:2]

    def at(row, column):
        found = pixels[int((row + 0.5) * height / 4), int((column + 0.5) * width / 3)]
        return "#" + "".join(f"{value:02x}" for value in found)

    first, second, third, fourth, last = charts.HALO_COLOURS
    assert [at(0, 0), at(1, 0), at(2, 0), at(2, 2), at(3, 0)] == [first, second, third, fourth, last]
    assert at(3, 1) == charts.HALO_NOTHING
    assert "mm from head to tip" in drawn


def test_screws_with_and_without_a_verdict():
    """Verdict, numbers, and the reason where there is none. Planted: a screw not assessed shown as 'No halo found'."""
    silent = {"assessable": False, "width_median_mm": None, "reason": "the kernel is sharp"}
    html = page_of(with_screws(a_screw(), a_screw("L1-right", halo=silent, loosening="not_assessed")))
    text = Page(html).text
    assert "1 × Halo present" in text
    assert "1 × Not assessed" in text
    assert "No halo found" not in text
    assert "Not assessed, because the kernel is sharp." in text
    assert "1.52 (1.22 to 1.83)" in text
    assert "64 %" in text
    assert text.index("L1-right") < text.index("L1-left")  # as on the pictures
    assert html.count('class="halo"') == 1


def test_unmeasured_liv_gives_its_reason():
    note = Note("no_body", "no vertebral body was found", "L1")
    gone = vertebra("L1", Role.LIV, (), replace(FLAG, call="not_assessed", interval_hu=None), (note,))
    text = Page(page_of(json.loads(json.dumps(result_to_dict(case(gone), CREATED))))).text
    assert "not measured" in text
    assert "Not assessed, because there is no number: no vertebral body was found." in text


def test_two_results_make_one_page(tmp_path):
    screws = with_screws(a_screw()) | {"vertebrae": [], "series": {"series_instance_uid": "9.9", "n_slices": 3}}
    paths = [tmp_path / "hu.json", tmp_path / "implants.json"]
    for path, content in zip(paths, (a_result(), screws), strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    page = read_results(paths)
    assert len(page.scans) == 2
    assert len(page.screws) == 1
    assert page.overview_screws == ()
    assert "HU and implants come from two series" in Page(make_report(page).html).text
    with pytest.raises(SpineImgError, match="both hold vertebrae"):
        read_results([paths[0], paths[0]])
    with pytest.raises(SpineImgError, match="nothing to report"):
        build_page([("x.json", a_result() | {"vertebrae": []})])


def test_places_of_two_series_do_not_mix():
    """Screws of another series lie in another frame: not in the overview, and its picture is of the vertebrae's CT.

    Planted: the overview made from all places; the picture taken from whichever CT was given.
    """
    hu = json.loads(json.dumps(result_to_dict(a_matching_case(), CREATED)))
    moved = a_screw(head=[20.0, 30.0, 900.0], tip=[10.0, -10.0, 900.0])
    screws = hu | {"vertebrae": [], "screws": [moved], "series": hu["series"] | {"series_instance_uid": "9.9"}}
    page = build_page([("hu.json", hu), ("implants.json", screws)])
    assert charts.overview(page).size_mm == charts.overview(build_page([("hu.json", hu)])).size_mm
    volume = replace(a_volume(), series=SeriesInfo("9.9"))
    html = make_report(page, volumes={"screws": volume}).html
    assert 'class="schematic"' in html
    assert [one["alt"] for one in Page(html).all("img")] == [
        "CT in the plane of screw L1-left with the outline of its shaft"
    ]
    same = build_page([("hu.json", hu), ("implants.json", screws | {"series": hu["series"]})])
    assert len(same.overview_screws) == 1


# -- the page ---------------------------------------------------------------------------------------------------------


def test_page_is_self_contained_and_accessible():
    """No address to load, headings in order, a language, alternatives for every picture, scopes for every header."""
    volume = a_volume()
    page = build_page([("r.json", json.loads(json.dumps(result_to_dict(a_matching_case(), CREATED))))])
    html = make_report(page, volumes={"hu": volume}).html
    seen = Page(html)
    assert seen.open == []
    assert dict(seen.tags)["html"]["lang"] == "en"
    pictures = seen.all("img")
    assert len(pictures) == 7  # the spine and three ROIs of each end
    assert all(one["src"].startswith("data:image/png;base64,") and one["alt"] for one in pictures)
    assert not re.search(r"(src|href)=[\"'](?!data:)", html)
    assert "http:" not in html
    assert "https:" not in html
    assert not {"script", "link", "iframe"} & {tag for tag, _ in seen.tags}
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(attrs.get("scope") in ("col", "row") for attrs in seen.all("th"))
    assert all("aria-label" in attrs or attrs.get("aria-hidden") == "true" for attrs in seen.all("svg"))
    assert "Research use only, not a medical device" in seen.text


def test_ends_that_contradict_each_other_are_both_shown():
    result = with_screws(a_screw())
    assert "the implant screen found" not in Page(page_of(result)).text
    result["grade"]["construct"] = {"uiv": "T11", "liv": "L1"}
    assert "Construct T12 to L1 (the implant screen found T11 to L1)" in Page(page_of(result)).text


def test_without_a_source_a_schematic_says_so():
    html = page_of(with_screws(a_screw()))
    assert 'class="schematic"' in html
    assert "the CT was not given, so there is no picture" in Page(html).text


def test_source_must_be_the_scan_that_was_measured():
    """Planted: the check of the slice count left out."""
    volume = a_volume()
    other = build_page([("r.json", a_result())])  # 290 slices
    with pytest.raises(SpineImgError, match="290"):
        make_report(other, volumes={"hu": volume})
    page = build_page([("r.json", json.loads(json.dumps(result_to_dict(a_matching_case(), CREATED))))])
    with pytest.raises(SpineImgError, match="give its CT"):
        make_report(page, volumes={"hu": replace(volume, series=SeriesInfo("5.5.5"))})


def test_roi_pictures_show_the_measured_planes():
    """The volume's HU is 100 + z, so the superior plane's picture is brighter than the inferior one's."""
    page = build_page([("r.json", json.loads(json.dumps(result_to_dict(a_matching_case(), CREATED))))])
    html = make_report(page, volumes={"hu": a_volume()}).html
    grey = []
    for one in Page(html).all("img")[1:]:
        picture = np.asarray(Image.open(BytesIO(base64.b64decode(one["src"].split(",")[1]))).convert("L"))
        grey.append(float(np.median(picture)))
    assert grey[0] > grey[1] > grey[2] > grey[3] > grey[4] > grey[5]


def test_pdf_is_whole(tmp_path):
    path = tmp_path / "r.pdf"
    write_pdf(make_report(build_page([("r.json", with_screws(a_screw()))])), path)
    content = path.read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")


def test_pdf_without_its_libraries_is_one_sentence(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *args, **options):
        if name.startswith("weasyprint"):
            raise OSError("cannot load library 'libpango-1.0-0': not found\nmore")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SpineImgError, match=r"libpango.*install Pango"):
        write_pdf(make_report(build_page([("r.json", a_result())])), tmp_path / "r.pdf")
    assert list(tmp_path.iterdir()) == []


# -- identity and markup ----------------------------------------------------------------------------------------------


def secret_result():
    """A result whose every free text of a header holds a name, and notes that repeat some of it."""
    acquisition = Acquisition(
        kvp=120.0,
        contrast=True,
        contrast_agent=f"{SECRET} agent",
        contrast_route=f"{SECRET} route",
        kernel=f"{SECRET}kernel",
        slice_thickness_mm=1.0,
        manufacturer=f"{SECRET} maker",
        model=f"{SECRET} model",
    )
    series = SeriesInfo("1.2.840.777", None, f"CT of {SECRET}", patient=(("patient_name", f"{SECRET}^Jane"),))
    notes = (
        Note("odd", f"the kernel {SECRET}kernel is not known", f"/data/{SECRET}/1.dcm"),
        Note("odd", f"slice /data/{SECRET}/1.dcm is left out"),
        Note("odd", f"the file {SECRET}.dcm is left out"),
    )
    document = result_to_dict(a_matching_case(acquisition=acquisition, series=series, notes=notes), CREATED)
    return json.loads(json.dumps(document))


def texts_in_pngs(html):
    found = []
    for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html):
        png = base64.b64decode(data)
        found.append(str(Image.open(BytesIO(png)).info))
        assert SECRET.encode() not in png
    return found


def test_no_identity_in_html_png_or_pdf(tmp_path):
    """Planted: the series description in the header; raw kernel among the facts; notes shown as they are."""
    result = secret_result()
    volume = replace(a_volume(), series=SeriesInfo("1.2.840.777", None, f"CT of {SECRET}"))
    made = make_report(build_page([("r.json", result)]), volumes={"hu": volume})
    assert SECRET not in made.html
    assert "1.2.840.777" not in made.html
    assert "2026" not in re.sub(r"base64,[^\"]+", "", made.html)
    infos = texts_in_pngs(made.html)
    assert infos
    assert all(SECRET not in info for info in infos)
    write_pdf(made, tmp_path / "r.pdf")
    content = (tmp_path / "r.pdf").read_bytes()
    assert SECRET.encode() not in content
    assert SECRET.encode("utf-16-be") not in content
    assert not re.search(rb"/(CreationDate|ModDate|Author)", content)


def test_identity_is_shown_on_request():
    html = page_of(secret_result(), keep_ids=True)
    assert f"{SECRET}^Jane" in html
    assert "1.2.840.777" in html
    assert "Holds the identity of the patient" in html


def test_known_kernels_are_named():
    assert known_kernel("B30f") == "B30f"
    assert known_kernel("Br40d\\2") is None
    assert known_kernel(SECRET) is None


def test_markup_in_texts_stays_text():
    """Planted: autoescape off; a label put into an SVG unescaped."""
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    result = with_screws(a_screw())
    result["screws"][0]["id"] = evil
    result["screws"][0]["halo"]["shape"] = evil
    result["grade"]["text"] = result["series"]["description"] = evil
    result["vertebrae"][0]["notes"] = [{"code": "x", "text": evil, "about": evil}]
    result["made_by"]["settings"][evil] = evil
    result["vertebrae"][1]["flag"]["text"] = result["vertebrae"][1]["flag"]["source"] = evil
    score = {
        "score": evil,
        "text": evil,
        "source": evil,
        "parts": [{"name": evil, "says": evil}],
        "notes": [{"text": evil}],
    }
    html = page_of(result, scores=[score], keep_ids=True)
    tags = {tag for tag, _ in Page(html).tags}
    assert "script" not in tags
    assert "img" not in tags
    assert "alert(1)" in html  # shown, as text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("screws",), [1, 2]),
        (("screws", 0, "head"), [0, 0]),
        (("screws", 0, "diameter_mm"), "6.5"),
        (("screws", 0, "loosening"), "loose"),
        (("screws", 0, "level"), "Q7"),
        (("screws", 0, "halo"), "none"),
        (("screws", 0, "halo", "map", "width_mm"), [[1.0]]),
        (("screws", 0, "halo", "map", "depths_mm"), None),
        (("grade",), []),
        (("acquisition",), 3),
        (("acquisition", "kvp"), "high"),
        (("vertebrae", 0, "role"), "MIV"),
        (("vertebrae", 0, "slices", 0, "u"), "x"),
        (("vertebrae", 1, "flag", "interval_hu"), [1]),
        (("notes",), {"a": 1}),
    ],
)
def test_wrong_values_are_named_in_one_sentence(path, value):
    result = copy.deepcopy(with_screws(a_screw()))
    holder = result
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(SpineImgError, match=r"r\.json"):
        page_of(result)


def test_file_is_written_whole_or_not_at_all(tmp_path):
    made = make_report(build_page([("r.json", a_result())]))
    write_html(made, tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == made.html
    with pytest.raises(SpineImgError, match="does not exist"):
        write_html(made, tmp_path / "no" / "r.html")
    assert [one.name for one in tmp_path.iterdir()] == ["r.html"]
