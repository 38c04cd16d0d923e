"""Reports as files: what is in them, for which runs there are, what is refused."""

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from firstspike.cli import main
from firstspike.plots import PLOTS
from firstspike.reports import details
from firstspike.reports.page import render
from firstspike.reports.sweep import sweep_page
from firstspike.reports.write import run_page, write_report
from firstspike.runs import Run
from firstspike.sweeps.table import NUMBERS, SweepTable


def text_of(html):
    """What a page says, without what is packed and without scripts."""
    html = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["firstspike", "report", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


@pytest.mark.slow
def test_command(report_runs, monkeypatch, capsys):
    run = report_runs / "bars"
    code, out, err = command(monkeypatch, capsys, run)
    assert (code, out.strip(), err) == (0, str(run / "report.html"), "")
    assert (run / "report.html").stat().st_size < 10e6


def test_page_says_how_it_was_made(report_runs, yin_yang_data):
    shown = text_of(run_page(yin_yang_data))
    for part in ("finished", "seed 3", "float32", "torch 2", "exact", "4 → 15 → 3", "kind: yin_yang"):
        assert part in shown, part
    test = yin_yang_data.results["test"]["accuracy"]
    assert f"{100 * test:.2f} % (" in shown


@pytest.mark.slow
def test_page_has_all_of_it_inside(yin_yang_data):
    html = run_page(yin_yang_data)
    assert not re.findall(r"<(?:script|img|link|iframe)[^>]*\b(?:src|href)=\"(?!data:)", html)
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html
    assert "Permission is hereby granted" in html  # the library's licence goes with it
    assert run_page(yin_yang_data) == html


def test_policy_allows_these_scripts_and_styles_alone(yin_yang_data):
    html = run_page(yin_yang_data)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    assert parts.keys() == {"default-src", "script-src", "style-src", "img-src"}
    assert "unsafe" not in policy
    packed = re.search(r'id="library">([^<]*)<', html)[1]
    library = gzip.decompress(base64.b64decode(packed)).decode()
    (script,) = re.findall(r'<script type="module">(.*?)</script>', html, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    for allowed, texts in ((parts["script-src"], (script, library)), (parts["style-src"], (style, ""))):
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert allowed.split() == [f"'sha256-{digest}'" for digest in digests]
    assert 'style="' not in html  # it would be blocked


def test_seeds(report_runs, data_in):
    html = write_report(report_runs / "seeds", report_runs / "seeds.html").read_text("utf-8")
    data = data_in(html)
    assert [member["name"] for member in data["members"]] == ["seed 3", "seed 4"]
    assert all({"confusion", "samples", "plane"} <= set(member) for member in data["members"])
    pictures = re.findall(r'<section id="([a-z0-9-]+)"( data-member="\d")?>\s*<h2>[^<]*</h2>\s*<img src="data:', html)
    assert [name for name, _ in pictures] == [
        "training",
        "output-spike-times-by-class",
        "output-spike-times-by-class-1",
        "inputs-that-decide",
        "inputs-that-decide-1",
    ]
    assert [member[-2:-1] for _, member in pictures] == ["", "0", "1", "0", "1"]
    assert re.search(r" mean [0-9.]+ ± [0-9.]+ [0-9.]+ ± ", text_of(html))
    assert '<option value="1">seed 4</option>' in html


def test_unfinished_run(report_runs, tmp_path, data_in):
    run = shutil.copytree(report_runs / "bars", tmp_path / "run")
    (run / "results.json").unlink()
    (member,) = data_in(write_report(run).read_text("utf-8"))["members"]
    assert "samples" in member
    assert "not finished: 3 of 3 epochs" in text_of((run / "report.html").read_text("utf-8"))


def test_run_that_has_just_begun(report_runs, tmp_path, data_in):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(report_runs / "bars" / "config.yaml", run)
    html = write_report(run).read_text("utf-8")
    (member,) = data_in(html)["members"]
    assert set(member) == {"name", "classes", "notes", "split"}
    assert data_in(html)["unit"] == 1.0
    config = (run / "config.yaml").read_text("utf-8")
    (run / "config.yaml").write_text(config.replace("neuron:\n", "neuron:\n  unit: ms\n", 1), "utf-8")
    assert data_in(write_report(run).read_text("utf-8"))["unit"] == "ms"
    shown = text_of(html)
    assert "not finished: 0 of 3 epochs" in shown
    assert "Left out: confusion matrix, single samples:" in shown
    assert "no checkpoint" in shown


def test_seeds_that_have_not_begun(report_runs, tmp_path, data_in):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(report_runs / "seeds" / "config.yaml", run)
    (member,) = data_in(write_report(run).read_text("utf-8"))["members"]
    assert set(member) == {"name", "classes", "notes", "split"}


def test_checkpoints_of_a_newer_version_are_told(report_runs, tmp_path, monkeypatch, capsys, caplog):
    run = shutil.copytree(report_runs / "bars", tmp_path / "run")
    for manifest in run.rglob("manifest.json"):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 2}))
    assert command(monkeypatch, capsys, run)[0] == 0
    (said,) = [record.message for record in caplog.records if record.message.startswith("the report is not whole: ")]
    assert "format should be 1, got 2" in said


@pytest.mark.slow
def test_data_that_are_gone(report_runs, tmp_path, image_folder, train_run, bars_config, data_in):
    data = {"kind": "mnist", "train": 30, "validation": 10, "test": 12}
    layers = [{"kind": "lif", "out_features": 10}]
    place = shutil.copytree(image_folder, tmp_path / "images")
    run = train_run(
        tmp_path / "run",
        bars_config | {"data": data | {"folder": str(place)}, "network": layers},
    )
    (member,) = data_in(write_report(run).read_text("utf-8"))["members"]
    assert member["samples"]["image"] == {"rows": 28, "columns": 28}
    shutil.rmtree(place)
    (member,) = data_in(write_report(run).read_text("utf-8"))["members"]
    assert set(member) == {"name", "notes"}
    assert "files are not in" in member["notes"][0]


def test_substrate(report_runs, tmp_path, train_run, bars_config):
    run = train_run(tmp_path / "run", bars_config | {"substrate": {"kind": "noisy", "threshold_spread": 0.01}})
    shown = text_of(write_report(run).read_text("utf-8"))
    assert "on the substrate noisy" in shown
    assert "threshold_spread 0.01" in shown


def test_names_are_escaped(report_runs, tmp_path):
    run = shutil.copytree(report_runs / "bars", tmp_path / "<img src=x onerror=alert(1)>")
    html = write_report(run).read_text("utf-8")
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html


def test_reports_of_other_networks_have_names_of_their_own(report_runs):
    run = report_runs / "bars"
    assert write_report(run, checkpoint="epoch_0002") == run / "report_at_epoch_0002.html"
    assert write_report(Run(run, "epoch_0002", "noisy")) == run / "report_on_noisy_at_epoch_0002.html"


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_names_that_are_no_text(report_runs, tmp_path):
    run = shutil.copytree(report_runs / "bars", os.fsdecode(os.fsencode(tmp_path) + b"/b\xff/0000"))
    assert "<h1>0000</h1>" in write_report(run).read_text("utf-8")
    page = write_report(Path(run).parent, tmp_path / "page.html").read_text("utf-8")
    assert r"<h1>b\udcff</h1>" in page
    assert 'href="b%FF/0000/report.html"' in page


def test_checkpoint(report_runs, tmp_path, data_in, monkeypatch, capsys):
    page = write_report(report_runs / "yin_yang", tmp_path / "page.html", "epoch_0002")
    assert data_in(page.read_text("utf-8"))["members"][0]["confusion"]["checkpoint"] == "epoch_0002"
    code, _, err = command(monkeypatch, capsys, report_runs / "yin_yang", "--checkpoint", "epoch_2")
    assert (code, err.strip().endswith("did you mean epoch_0002?")) == (2, True)


@pytest.mark.parametrize(
    ("owner", "name", "note"),
    [
        (PLOTS, "margins", "inputs that decide: IndexError: no such row"),
        (details, "confusion", "confusion matrix: IndexError: no such row"),
        (details, "_membranes", None),
    ],
)
def test_a_part_that_fails_takes_no_other_with_it(
    report_runs, tmp_path, monkeypatch, caplog, data_in, owner, name, note
):
    def broken(*_):
        raise IndexError("no such row")

    (monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr)(owner, name, broken)
    html = write_report(report_runs / "bars", tmp_path / "page.html").read_text("utf-8")
    assert caplog.text.count("IndexError: no such row") == 1
    assert "Traceback" not in caplog.text
    (member,) = data_in(html)["members"]
    assert len(member["samples"]["index"]) == 12
    assert html.count('<img src="data:image/png') == 3 - (name == "margins")
    assert note is None or note in text_of(html)
    assert ("membrane" in member["samples"]) == (note is not None)


@pytest.mark.slow
def test_sweep_of_a_folder(report_runs):
    page = write_report(report_runs / "sweep", report_runs / "sweep.html")
    html = page.read_text("utf-8")
    heads = re.findall(r'<th scope="col">([^<]*)<', html)
    assert heads[1:3] == ["network[0].out_features", "training.optimizer.lr"]
    assert 'id="library"' not in html
    assert 'href="sweep/0001"' in html
    write_report(report_runs / "sweep", page, runs=True)
    assert 'href="sweep/0001/report.html"' in page.read_text("utf-8")
    assert (report_runs / "sweep" / "0001" / "report.html").is_file()


def row(folder, **values):
    return {key: values.get(key) for key in (*NUMBERS, "x")} | {"folder": str(folder), "state": "complete"} | values


def test_sweep_of_a_table(report_runs, tmp_path):
    rows = [
        row(report_runs / "sweep" / "0000", x=0.1, validation_accuracy=0.9, validation_std=0.01, seconds=12.5),
        row(tmp_path / "gone", x=0.2, state="failed", reason="ValueError: <b>"),
    ]
    html = sweep_page("table", SweepTable(["x"], rows), tmp_path)
    assert re.findall(r'<th scope="col">([^<]*)<', html)[1:] == ["x", "validation %", "seconds", "state", "reason"]
    assert "90.00 ± 1.00" in html
    assert "ValueError: &lt;b&gt;" in html
    assert re.search(r'href="[./]*[^"]*sweep/0000(/report.html)?"', html)
    assert ">gone</td>" in html  # and no link


def test_numbers_that_are_none_are_words(tmp_path):
    rows = [
        row(tmp_path / "0000", x=float("inf"), validation_accuracy=float("nan"), test_accuracy=0.5),
        row(tmp_path / "0001", x=2.0, validation_accuracy=0.7, test_accuracy=float("inf"), seconds=2),
    ]
    html = sweep_page("table", SweepTable(["x"], rows), tmp_path)
    assert "<td>nan</td>" in html
    assert "<td>inf</td>" in html


def test_sweep_by_its_name_whose_study_is_out_of_reach(report_runs, tmp_path, monkeypatch, capsys, caplog):
    folder = tmp_path / "runs" / "mine"
    shutil.copytree(report_runs / "bars", folder / "0000")
    (folder / "sweep.json").write_text('{"name": "mine", "storage": "postgresql+psycopg://me@127.0.0.1:1/db"}')
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, capsys, "mine")[:2] == (0, "runs/mine/report.html\n")
    assert "cannot be reached" in caplog.text
    assert "0000" in (folder / "report.html").read_text("utf-8")


def test_a_damaged_file_is_named(report_runs, tmp_path, monkeypatch, capsys):
    run = tmp_path / "bars"
    shutil.copytree(report_runs / "bars", run)
    (run / "results.json").write_text("{")
    code, _, err = command(monkeypatch, capsys, run)
    assert (code, err.startswith(f"error: {run / 'results.json'} is damaged")) == (2, True)


def test_refused(report_runs, tmp_path, monkeypatch, capsys):
    code, _, err = command(monkeypatch, capsys, tmp_path)
    assert (code, "neither a run nor a sweep" in err) == (2, True)
    code, _, err = command(monkeypatch, capsys, report_runs / "sweep", "--checkpoint", "best")
    assert (code, "--checkpoint is for the report of one run" in err) == (2, True)
    code, _, err = command(monkeypatch, capsys, report_runs / "bars", "--out", tmp_path / "no" / "page.html")
    assert (code, "No such file" in err) == (2, True)


def test_missing_extra(report_runs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly", None)
    code, _, err = command(monkeypatch, capsys, report_runs / "bars")
    assert (code, err.startswith("error: Plotly is missing. Install it: ")) == (2, True)


def test_no_infinity_reaches_a_page():
    with pytest.raises(ValueError, match="JSON"):
        render("sweep", {"rows": [float("inf")]}, title="", head=[], rows=[], pictures=[])
