"""Against a real Orthanc on loopback: round trips, partial retrieval, refusals, kills."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from spineimg.pacs import needed
from spineimg.pacs.inbox import Inbox
from tests.dicom_factory import PATIENT, axial, new_uid, pattern, write_series
from tests.pacs.conftest import COUNT, Run, Study, is_one_sentence, make_study, measured, started
from tests.pacs.orthanc import PASSWORD, Orthanc, make_certificate

SLOW_GET = pytest.param("get", marks=pytest.mark.slow)
SLOW_MOVE = pytest.param("move", marks=pytest.mark.slow)


def sent(run: Run, config: Path, study: Study) -> None:
    said = run("pacs", "send", study.ct.folder, "--config", config, "--node", "web", "--quiet")
    assert (said.code, said.out, said.err) == (0, "", "")


def write_sr(path: Path, study: Study) -> Dataset:
    """A structured report with one line of text, on this study."""
    source = pydicom.dcmread(study.ct.paths[0])
    report = Dataset()
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.34"
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = new_uid("report")
    report.SeriesInstanceUID = new_uid()
    for name in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "StudyDate", "StudyTime"):
        setattr(report, name, getattr(source, name))
    report.Modality, report.SeriesNumber, report.InstanceNumber = "SR", 9, 1
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    text = Dataset()
    text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", "L1: 143.2 HU"
    report.ContentSequence = [text]
    report.save_as(path, enforce_file_format=True)
    return report


@pytest.mark.parametrize("node", ["web", "get", "move"])
def test_what_was_sent_comes_back_and_measures_the_same(
    node: str, orthanc: Orthanc, study: Study, run: Run, tmp_path: Path
) -> None:
    config = orthanc.config(tmp_path)
    way = "get" if node == "move" else node
    said = run("pacs", "send", study.ct.folder, "--config", config, "--node", way, "--json", "-")
    outcomes = [row["outcome"] for row in json.loads(said.out)["instances"]]
    assert (said.code, outcomes) == (0, ["stored"] * COUNT)

    out = tmp_path / "back"
    said = run("pacs", "get", out, "--study", study.study_uid, "--config", config, "--node", node, "--json", "-")
    assert said.code == 0, said.err
    (row,) = json.loads(said.out)["series"]
    assert (row["n_instances"], row["n_received"], row["n_kept"]) == (COUNT, COUNT, COUNT)
    n_bytes = sum(path.stat().st_size for path in study.ct.paths)
    assert 0.4 * n_bytes < row["bytes_received"] < 1.5 * n_bytes  # HTTP compresses on the way
    back = measured(run, out, study.rois, tmp_path / "back.json")
    assert back == measured(run, study.ct.folder, study.rois, tmp_path / "sent.json")
    for uid, path in zip(study.ct.sop_uids, study.ct.paths, strict=True):
        received = pydicom.dcmread(out / study.ct.series_uid / f"{uid}.dcm")
        assert received.PixelData == pydicom.dcmread(path).PixelData


@pytest.mark.parametrize("node", ["web", "get"])
def test_find_tells_no_patient_unless_asked(
    node: str, orthanc: Orthanc, study: Study, run: Run, tmp_path: Path
) -> None:
    config = orthanc.config(tmp_path)
    sent(run, config, study)
    base = ("pacs", "find", "--config", config, "--node", node)
    said = run(*base, "--patient", PATIENT["PatientID"], "--date", "20240101-20241231", "--json", "-")
    row = next(r for r in json.loads(said.out)["studies"] if r["study_instance_uid"] == study.study_uid)
    assert (row["date"], row["description"], row["modalities"]) == ("20240229", "Spine", ["CT"])
    assert (row["n_series"], row["n_instances"]) == (1, COUNT)
    assert not any(value in said.out for value in PATIENT.values())
    said = run(*base, "--keep-ids", "--json", "-")
    assert all(value in said.out for value in PATIENT.values())
    said = run(*base, "--study", study.study_uid)
    assert study.ct.series_uid in said.out
    assert str(COUNT) in said.out


@pytest.mark.parametrize("node", ["web", SLOW_GET])
def test_the_slices_that_rois_need_measure_as_the_whole_series_does(
    node: str, orthanc: Orthanc, study: Study, run: Run, tmp_path: Path
) -> None:
    """Planted: no margin, so that ROIs lie at the ends of the volume (the comparison then fetches everything)."""
    config = orthanc.config(tmp_path)
    sent(run, config, study)
    out, words = tmp_path / "few", ("--study", study.study_uid, "--config", config, "--node", node)
    said = run("pacs", "get", out, *words, "--rois", study.rois, "--json", "-")
    assert said.code == 0, said.err
    (row,) = json.loads(said.out)["series"]
    # The ROIs touch slices 12 to 16, metal is looked for up to 3 mm away, and four more are taken on either side.
    assert (row["n_needed"], row["n_kept"], row["why_all"]) == (17, 17, None)
    few = measured(run, out, study.rois, tmp_path / "few.json")
    assert few == measured(run, study.ct.folder, study.rois, tmp_path / "all.json")

    said = run("pacs", "get", out, *words, "--json", "-")
    (row,) = json.loads(said.out)["series"]
    assert (row["n_received"], row["n_kept"]) == (COUNT - 17, COUNT)
    said = run("pacs", "get", out, *words, "--json", "-")
    assert json.loads(said.out)["series"][0]["n_received"] == 0


def test_what_only_far_slices_tell_makes_all_be_fetched(orthanc: Orthanc, run: Run, tmp_path: Path) -> None:
    """Contrast agent in the last slice alone makes contrast unknown, which a part of the series would not show.

    Planted: any part believed that makes a series.
    """
    study = make_study(tmp_path)
    last = pydicom.dcmread(study.ct.paths[-1])
    last.ContrastBolusAgent = "Ultravist 370"
    last.save_as(study.ct.paths[-1])
    config = orthanc.config(tmp_path)
    sent(run, config, study)
    words = ("--study", study.study_uid, "--config", config, "--node", "web")
    said = run("pacs", "get", tmp_path / "out", *words, "--rois", study.rois, "--json", "-")
    (row,) = json.loads(said.out)["series"]
    assert row["n_kept"] == COUNT
    assert row["why_all"]
    few = measured(run, tmp_path / "out", study.rois, tmp_path / "few.json")
    assert few == measured(run, study.ct.folder, study.rois, tmp_path / "all.json")


def test_rois_of_another_series_fetch_nothing(orthanc: Orthanc, study: Study, run: Run, tmp_path: Path) -> None:
    config = orthanc.config(tmp_path)
    sent(run, config, study)
    words = ("--study", study.study_uid, "--config", config, "--node", "web", "--rois", study.far_rois)
    said = run("pacs", "get", tmp_path / "out", *words)
    assert is_one_sentence(said)
    assert "no ROI lies in series" in said.err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_report_goes_and_comes_back_beside_the_ct(orthanc: Orthanc, study: Study, run: Run, tmp_path: Path) -> None:
    config = orthanc.config(tmp_path)
    report = write_sr(tmp_path / "report.dcm", study)
    sent(run, config, study)
    assert run("pacs", "send", tmp_path / "report.dcm", "--config", config, "--node", "get").code == 0
    for node in ("web", "get"):
        out = tmp_path / node
        said = run("pacs", "get", out, "--study", study.study_uid, "--config", config, "--node", node)
        assert said.code == 0, said.err
        back = pydicom.dcmread(out / report.SeriesInstanceUID / f"{report.SOPInstanceUID}.dcm")
        assert back.ContentSequence[0].TextValue == "L1: 143.2 HU"
        assert len(list((out / study.ct.series_uid).iterdir())) == COUNT


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "reason"),
    [("web", "HTTP 401"), ("misnamed", "called ae title not recognised"), ("stranger", "broke off")],
)
def test_access_refused_is_one_sentence(
    node: str, reason: str, orthanc: Orthanc, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINEIMG_PACS_WEB_PASSWORD", "wrong-and-secret")
    said = run("pacs", "find", "--config", orthanc.config(tmp_path), "--node", node)
    assert is_one_sentence(said)
    assert reason in said.err
    assert "wrong-and-secret" not in said.err
    assert PASSWORD not in said.err


@pytest.mark.parametrize("node", ["web", "get"])
def test_nothing_found_is_one_sentence(node: str, orthanc: Orthanc, run: Run, tmp_path: Path) -> None:
    base = ("--config", orthanc.config(tmp_path), "--node", node)
    said = run("pacs", "find", *base, "--patient", "nobody has this id")
    assert is_one_sentence(said)
    assert "nothing matches" in said.err
    assert "nobody has this id" not in said.err
    for words in (("--study", "1.2.3.4"),):
        assert is_one_sentence(run("pacs", "find", *base, *words))
        assert is_one_sentence(run("pacs", "get", tmp_path / "out", *base, *words))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("node", ["web", "get", SLOW_MOVE])
def test_a_series_that_is_no_ct_is_refused_by_name(node: str, orthanc: Orthanc, run: Run, tmp_path: Path) -> None:
    """Orthanc holds an MR series; it says so in its listing."""
    study_uid = new_uid("study")
    tags = {"StudyInstanceUID": study_uid, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}
    mr = write_series(tmp_path / "mr", pattern(4), axial(4), tags=tags)
    config = orthanc.config(tmp_path)
    said = run("pacs", "send", mr.folder, "--config", config, "--node", "web")
    assert is_one_sentence(said)
    assert "MR Image Storage" in said.err
    _post(orthanc, mr.paths)
    words = ("--config", config, "--node", node, "--study", study_uid)
    for more in ((), ("--series", mr.series_uid)):
        said = run("pacs", "get", tmp_path / "out", *words, *more)
        assert is_one_sentence(said)
        assert "MR" in said.err
    assert not list(tmp_path.glob("out/*"))


def _post(orthanc: Orthanc, paths: tuple[Path, ...]) -> None:
    """Stores files through Orthanc's own interface."""
    import requests

    for path in paths:
        url = f"http://localhost:{orthanc.http_port}/instances"
        requests.post(url, path.read_bytes(), auth=(orthanc.user, PASSWORD), timeout=10).raise_for_status()


def test_sending_anything_but_dicom_sends_nothing(orthanc: Orthanc, study: Study, run: Run, tmp_path: Path) -> None:
    config = orthanc.config(tmp_path)
    (study.ct.folder / "zz notes.txt").write_text("not DICOM at all")
    said = run("pacs", "send", study.ct.folder, "--config", config, "--node", "web")
    assert is_one_sentence(said)
    assert "zz notes.txt: not DICOM; nothing was sent" in said.err
    assert run("pacs", "find", "--study", study.study_uid, "--config", config, "--node", "web").code == 1
    assert is_one_sentence(run("pacs", "send", tmp_path / "nowhere", "--config", config, "--node", "web"))


# -- kills ------------------------------------------------------------------------------------------------------------


def _after(monkeypatch: pytest.MonkeyPatch, count: int, then: object) -> None:
    """Calls `then` when so many instances have come."""
    receive, seen = Inbox.receive, []

    def counting(self: Inbox, data: bytes) -> None:
        receive(self, data)
        seen.append(1)
        if len(seen) == count:
            then()  # type: ignore[operator]

    monkeypatch.setattr(Inbox, "receive", counting)


@pytest.mark.parametrize("node", ["web", SLOW_GET, SLOW_MOVE])
def test_a_node_killed_in_mid_transfer_leaves_nothing_to_measure_and_resumes(
    node: str, study: Study, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the partial folder named without its prefix (then `hu` measures half a series)."""
    server = started(tmp_path / "server")
    try:
        config = server.config(tmp_path)
        sent(run, config, study)
        out = tmp_path / "out"
        words = ("pacs", "get", out, "--study", study.study_uid, "--config", config, "--node", node)
        with monkeypatch.context() as patch:
            _after(patch, 7, lambda: server.stop(signal.SIGKILL))
            said = run(*words)
        assert is_one_sentence(said)
        assert f"of {COUNT} instances are there" in said.err
        assert "again" in said.err
        here = [path.name for path in out.iterdir()]
        assert here == [f".partial-{study.ct.series_uid}"]
        listing = json.loads(run("series", out, "--json", "-").out)
        assert listing["series"] == []
        assert "not finished" in listing["skipped"][0]["reason"]
        for place in (out, out / here[0]):
            assert is_one_sentence(run("hu", place, "--rois", study.rois))
        kept = len(list((out / here[0]).glob("*.dcm")))
        server.start()
        said = run(*words, "--json", "-")
        assert said.code == 0, said.err
        (row,) = json.loads(said.out)["series"]
        assert kept >= 7
        assert (row["n_received"], row["n_kept"]) == (COUNT - kept, COUNT)
        back = measured(run, out, study.rois, tmp_path / "back.json")
        assert back == measured(run, study.ct.folder, study.rois, tmp_path / "sent.json")
    finally:
        server.stop()


def test_a_transfer_stopped_by_hand_is_taken_up_and_broken_files_fetched_again(
    orthanc: Orthanc, study: Study, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier run left may be cut short, foreign, or half written.

    Planted: files of the earlier run believed by their names.
    """

    def stop() -> None:
        raise KeyboardInterrupt

    config, out = orthanc.config(tmp_path), tmp_path / "out"
    sent(run, config, study)
    words = ("pacs", "get", out, "--study", study.study_uid, "--config", config, "--node", "web")
    with monkeypatch.context() as patch:
        _after(patch, 9, stop)
        assert run(*words).code == 130
    partial = out / f".partial-{study.ct.series_uid}"
    files = sorted(partial.glob("*.dcm"))
    assert len(files) == 9
    files[0].write_bytes(files[0].read_bytes()[:-1000])
    files[1].write_bytes(files[2].read_bytes())
    (partial / "123.arriving").write_bytes(b"half")
    said = run(*words, "--json", "-")
    assert json.loads(said.out)["series"][0]["n_received"] == COUNT - 7
    assert sorted(path.stem for path in (out / study.ct.series_uid).iterdir()) == sorted(study.ct.sop_uids)


# -- TLS --------------------------------------------------------------------------------------------------------------


def test_tls_with_the_right_and_the_wrong_certificate(study: Study, run: Run, tmp_path: Path) -> None:
    """Planted: verification switched off."""
    server = started(tmp_path / "server", tls=True)
    try:
        config = server.config(tmp_path)
        for node in ("web", "get"):
            words = ("--config", config, "--node", node)
            assert run("pacs", "send", study.ct.paths[0], *words).code == 0
            assert run("pacs", "find", *words, "--study", study.study_uid).code == 0
        wrong, _ = make_certificate(tmp_path / "other", "localhost")
        others = {
            "another certificate": config.read_text().replace(str(server.root / "certificate.pem"), str(wrong)),
            "another host": config.read_text().replace("localhost", "127.0.0.1"),
            "unknown issuer": "\n".join(x for x in config.read_text().splitlines() if not x.startswith("ca_file")),
        }
        for name, text in others.items():
            bad = tmp_path / f"{name}.toml"
            bad.write_text(text)
            for node in ("web", "get"):
                said = run("pacs", "find", "--config", bad, "--node", node)
                assert is_one_sentence(said), name
                assert "TLS certificate is not trusted" in said.err
        plain = tmp_path / "plain.toml"
        plain.write_text(config.read_text().replace("tls = true", "tls = false").replace("https:", "http:"))
        for node in ("web", "get"):
            assert is_one_sentence(run("pacs", "find", "--config", plain, "--node", node))
    finally:
        server.stop()


def test_headers_that_make_no_series_fetch_all(
    orthanc: Orthanc, study: Study, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node need not tell positions in its answers to C-FIND."""
    whole = needed._file_header

    def without_place(header: Dataset) -> object:
        del header.ImagePositionPatient
        return whole(header)

    config = orthanc.config(tmp_path)
    sent(run, config, study)
    monkeypatch.setattr(needed, "_file_header", without_place)
    words = ("--study", study.study_uid, "--config", config, "--node", "get", "--rois", study.rois)
    said = run("pacs", "get", tmp_path / "out", *words, "--json", "-")
    (row,) = json.loads(said.out)["series"]
    assert row["n_kept"] == COUNT
    assert "headers" in row["why_all"]


@pytest.mark.slow
@pytest.mark.parametrize("node", ["web", "get"])
def test_results_go_to_the_pacs_and_measure_the_same_when_they_come_back(
    node: str, orthanc: Orthanc, study: Study, run: Run, tmp_path: Path
) -> None:
    """The whole way: CT sent, found, fetched, measured; SR and SEG sent, fetched, and the SR measured on the CT."""
    config = orthanc.config(tmp_path)
    words = ("--config", config, "--node", node)
    assert run("pacs", "send", study.ct.folder, *words).code == 0
    assert study.study_uid in run("pacs", "find", *words).out
    assert run("pacs", "get", tmp_path / "ct-back", "--study", study.study_uid, *words).code == 0
    result, dicom = tmp_path / "result.json", tmp_path / "dicom"
    before = measured(run, tmp_path / "ct-back", study.rois, result)
    said = run("export", result, "--source", tmp_path / "ct-back", "--dicom", dicom)
    assert said.code == 0, said.err
    exported = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in dicom.rglob("*") if path.is_file()}
    said = run("pacs", "send", dicom, *words)
    assert said.code == 0, said.err

    out = tmp_path / "all-back"
    said = run("pacs", "get", out, "--study", study.study_uid, *words)
    assert said.code == 0, said.err
    back = {path.stem: path for path in out.rglob("*.dcm")}
    assert set(back) == set(exported) | set(study.ct.sop_uids)
    for uid, path in exported.items():
        sent_dataset, back_dataset = pydicom.dcmread(path), pydicom.dcmread(back[uid])
        assert sent_dataset == back_dataset
    reports = [path for uid, path in back.items() if uid in exported and pydicom.dcmread(path).Modality == "SR"]
    assert len(reports) == 1
    again = tmp_path / "again.json"
    said = run("import", reports[0], "--source", tmp_path / "ct-back", "--json", again, "--quiet")
    assert said.code == 0, said.err
    means = [one["mean_hu"] for one in before]  # type: ignore[index,attr-defined]
    found = json.loads(again.read_text())["vertebrae"]
    assert [one["mean_hu"] for one in found] == pytest.approx(means, abs=1e-6)
