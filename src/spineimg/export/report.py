"""The page for the surgeon: a result as self-contained HTML, and the same as PDF.

Nothing of the patient's identity is on it unless asked for: no name, id, date, series UID or description, and no free
text of the headers. The page loads nothing from anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spineimg.errors import SpineImgError
from spineimg.export import report_charts as charts
from spineimg.export import report_svg as svg
from spineimg.export import report_words as words
from spineimg.export.files import replacing
from spineimg.export.json import read_result
from spineimg.export.report_model import Page, ScanView
from spineimg.export.report_pictures import Pictures, check_source, pictures
from spineimg.export.report_reading import build_page
from spineimg.export.report_scores import read_score
from spineimg.volume import CTVolume

_TEMPLATES = Path(__file__).parent / "templates"
_CALL_OF_SCORE = {"image": "from the image", "level": "from the level", "stated": "stated"}


@dataclass(frozen=True, slots=True)
class Report:
    """A finished page. page: what is on it; html: the whole document."""

    page: Page
    html: str


def read_results(paths: Sequence[str | os.PathLike[str]]) -> Page:
    """The page of one result file, or of two: vertebrae in one, implants in the other. Raises SpineImgError."""
    return build_page([(os.fspath(path), read_result(Path(path))) for path in paths])


def read_scores(paths: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Score files, in the order given. Raises SpineImgError."""
    return [read_score(Path(path)) for path in paths]


def make_report(
    page: Page,
    *,
    volumes: Mapping[str, CTVolume] | None = None,
    scores: Sequence[Mapping[str, Any]] = (),
    keep_ids: bool = False,
) -> Report:
    """The page as HTML.

    volumes: the CT that the vertebrae ("hu") and the screws ("screws") were measured on; without them the page has a
    schematic and says so. scores: score files. keep_ids: show patient, series and dates that the result holds.
    Raises SpineImgError when a volume is not the one that was measured.
    """
    view = charts.overview(page)
    shown = _pictures(page, view, volumes or {})
    context = {
        "page": page,
        "view": view,
        "spine": None if shown.spine is None else charts.data_uri(shown.spine),
        "axial": {key: charts.data_uri(png) for key, png in shown.axial.items()},
        "screw_pictures": {key: charts.data_uri(png) for key, png in shown.screws.items()},
        "scores": scores,
        "given_by": _CALL_OF_SCORE,
        "keep_ids": keep_ids,
        "charts": charts,
        "svg": svg,
        "words": words,
        "css": Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),  # ours, not a result's
    }
    return Report(page, _environment().get_template("report.html.j2").render(context))


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _pictures(page: Page, view: Any, volumes: Mapping[str, CTVolume]) -> Pictures:
    """Pictures on the CT of the vertebrae and on that of the screws, which may be two."""
    found = Pictures(None, {}, {})
    if view is None:
        return found
    pairs = [(kind, volumes.get(kind), scan) for kind, scan in (("hu", page.hu_scan), ("screws", page.screw_scan))]
    for kind, volume, scan in pairs:
        if volume is None or scan is None:
            continue
        check_source(volume, scan)
        both = scan is page.hu_scan and scan is page.screw_scan
        one = pictures(volume, page, view, hu=kind == "hu" or both, screws=kind == "screws" or both)
        found = Pictures(found.spine or one.spine, found.axial | one.axial, found.screws | one.screws)
        if both:
            break
    return found


# -- files ------------------------------------------------------------------------------------------------------------


def write_html(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes the page, whole or not at all."""
    with replacing(path) as handle:
        handle.write(report.html.encode("utf-8", "replace"))


def write_pdf(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes the page as PDF, whole or not at all.

    Raises SpineImgError when WeasyPrint or the libraries of the system that it needs (Pango) are missing.
    """
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except ImportError:
        raise SpineImgError("a PDF needs WeasyPrint: pip install weasyprint, or leave out --pdf") from None
    except OSError as error:
        raise SpineImgError(
            f"WeasyPrint does not find a library of the system ({str(error).splitlines()[0]}): install Pango "
            "(Debian: apt install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0), or leave out --pdf and print "
            "the HTML from a browser"
        ) from None
    # The page holds all it needs: nothing is fetched, whatever a text may have smuggled in.
    document = HTML(string=report.html, url_fetcher=URLFetcher(allowed_protocols=["data"])).write_pdf(pdf_tags=True)
    with replacing(path) as handle:
        handle.write(document)


def scans_of(page: Page) -> list[tuple[str, ScanView]]:
    """The series that pictures need: ("hu", scan) and ("screws", scan), as far as the page has them."""
    found = [("hu", page.hu_scan), ("screws", page.screw_scan)]
    return [(kind, scan) for kind, scan in found if scan is not None]
