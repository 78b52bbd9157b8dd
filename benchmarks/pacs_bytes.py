"""How many bytes the HU of two vertebrae cost, fetched from a PACS: the whole series against what is needed.

    python -m benchmarks.pacs_bytes [--slices N]

Starts an Orthanc on loopback, stores a study, fetches it both ways over DICOMweb and over DIMSE, measures both, and
prints a table (docs/pacs.md). Bytes are what came over the wire: HTTP bodies as compressed by the server, DIMSE data
sets. Both measurements must hold the same numbers (to 1e-6 HU), notes and flags, else the run stops.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom

import spineimg
from benchmarks.studies import RAW, Study, write_study
from spineimg.io.rois import read_rois, write_rois
from spineimg.pacs.jobs import Wanted, connect, get, send
from spineimg.pacs.needed import same
from spineimg.pacs.nodes import read_node
from spineimg.results import CaseResult
from spineimg.rois import RoiSet
from tests.pacs.orthanc import PASSWORD, USER, Orthanc, why_no_orthanc

SAMPLE = Path(__file__).parent.parent / "sample_data" / "preop"
NODES = {"web": "DICOMweb", "get": "DIMSE"}


def click(rois: RoiSet, level: str) -> RoiSet:
    """One of the vertebrae as a click alone."""
    chosen = tuple(replace(one, ellipses=()) for one in rois.vertebrae if one.level == level)
    return RoiSet(chosen)


def measured(folder: Path, rois: Path) -> CaseResult:
    return spineimg.assess(spineimg.load(folder), read_rois(rois))


def row(server: Orthanc, work: Path, what: str, ct: Path, rois: Path, node: str) -> str:
    """One line of the table. Stops the run when the numbers differ."""
    study = str(pydicom.dcmread(next(ct.iterdir()), stop_before_pixels=True).StudyInstanceUID)
    fetched: dict[str, Any] = {}
    folders = {}
    for kind, wanted in (("whole", Wanted(study)), ("needed", Wanted(study, rois=read_rois(rois)))):
        archive = connect(read_node(server.config(work), node))
        folders[kind] = Path(tempfile.mkdtemp(dir=work))
        (fetched[kind],) = get(archive, wanted, folders[kind])["series"]
        archive.close()
    if not same(measured(folders["whole"], rois), measured(folders["needed"], rois)):
        raise SystemExit(f"{what} over {NODES[node]}: the numbers differ")
    whole, needed = fetched["whole"], fetched["needed"]
    size = [whole["bytes_received"] / 1e6, needed["bytes_received"] / 1e6, needed["bytes_headers"] / 1e6]
    return (
        f"| {what} | {NODES[node]} | {whole['n_instances']} | {needed['n_received']} | {size[0]:.1f} | {size[1]:.1f} "
        f"| {size[2]:.2f} | {100 * size[1] / size[0]:.1f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=600)
    slices = parser.parse_args().slices
    if why_no_orthanc():
        raise SystemExit(why_no_orthanc())
    os.environ |= {"SPINEIMG_PACS_WEB_USER": USER, "SPINEIMG_PACS_WEB_PASSWORD": PASSWORD}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_study(Study(work / "large", slices, RAW))
        write_rois(work / "click.json", click(read_rois(SAMPLE / "rois.json"), "L5"))
        cases = (
            ("two vertebrae, three axial ellipses each", work / "large" / "ct", work / "large" / "rois.json"),
            ("sample study: L5, one click", SAMPLE / "ct", work / "click.json"),
            ("sample study: T11 and L5, three oblique ellipses each", SAMPLE / "ct", SAMPLE / "rois.json"),
        )
        server = Orthanc(work / "orthanc").start()
        try:
            archive = connect(read_node(server.config(work), "web"))
            outcomes = [send(archive, [ct])["instances"] for ct in (work / "large" / "ct", SAMPLE / "ct")]
            archive.close()
            if any(one["outcome"] != "stored" for some in outcomes for one in some):
                raise SystemExit("not everything was stored: " + json.dumps(outcomes)[:500])
            print("| ROIs | over | slices | fetched | whole MB | needed MB | of it headers MB | part |")
            print("|---|---|---|---|---|---|---|---|")
            for what, ct, rois in cases:
                for node in NODES:
                    print(row(server, work, what, ct, rois, node), flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
