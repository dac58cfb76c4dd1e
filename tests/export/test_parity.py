"""gvvad-export verify against a reference: what is compared, reported and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.cli import main
from export.parity import Parity, check, hard_windows, parity
from server.bundle import DEFAULT_BUNDLE, BundleError, file_sha256, load_bundle
from tests.support.footage import make_footage
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_encoders import bundle_with_encoder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_footage(tmp_path_factory.mktemp("clips"), sources=2)


def disturbed(folder: Path, noise: float) -> Path:
    """The default bundle with noise on its encoder's weights, its manifest in order."""
    shutil.copytree(DEFAULT_BUNDLE, folder)
    graph = onnx.load(folder / "encoder.onnx")
    random = np.random.default_rng(0)
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            scaled = values * (1 + noise * random.normal(size=values.shape))
            tensor.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), tensor.name))
    onnx.save(graph, folder / "encoder.onnx")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["encoder"]["graph"]["sha256"] = file_sha256(folder / "encoder.onnx")
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def test_a_bundle_agrees_with_itself_in_features_and_alarms(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = disturbed(tmp_path / "same", 0.0)
    more = ("--reference", str(DEFAULT_BUNDLE), "--backtest", str(clips), "--json")
    assert main(["verify", str(bundle), *more]) == 0
    found = json.loads(capsys.readouterr().out)["compared"]
    ran = found["engines"][0]
    assert (ran["engine"], ran["device"]) == ("onnxruntime", "cpu")
    kinds = {one["kind"] for one in ran["parity"]}
    assert kinds == {
        "black", "white", "one colour", "noise", "checkerboard", "wide strip", "tall strip", "real",
    }  # fmt: skip
    assert all(one["mean_cosine"] > 0.999999 for one in ran["parity"])
    effect = ran["effect"]
    assert effect["videos"] == 4
    assert effect["max_score_change"] < 1e-6
    assert effect["auc"] == effect["reference_auc"]
    assert json.loads((bundle / "verify.json").read_text()) == found
    assert "| real | 4 |" in (bundle / "verify.md").read_text()
    assert load_bundle(bundle)  # its report does not disturb it


def test_an_encoder_that_is_off_is_refused_and_the_report_tells_by_how_much(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = disturbed(tmp_path / "off", 0.2)
    more = ("--reference", str(DEFAULT_BUNDLE), "--backtest", str(clips), "--threads", "1")
    assert main(["verify", str(bundle), *more]) == 2
    told = capsys.readouterr().err
    assert "run by onnxruntime on cpu: features of" in told
    [found] = json.loads((bundle / "verify.json").read_text())["engines"]
    assert found["effect"]["max_score_change"] > 1e-4
    assert min(one["mean_cosine"] for one in found["parity"]) < 0.9999


def test_every_engine_is_run_or_named_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = disturbed(tmp_path / "same", 0.0)
    assert main(["verify", str(bundle), "--reference", str(DEFAULT_BUNDLE)]) == 0
    told = capsys.readouterr().out
    found = json.loads((bundle / "verify.json").read_text())
    ran = [(one["engine"], one["device"]) for one in found["engines"]]
    lacking = [(one["engine"], one["device"]) for one in found["lacking"]]
    assert sorted(ran + lacking) == [
        ("onnxruntime", "cpu"), ("onnxruntime", "cuda"), ("tensorrt", "cuda"),
        ("tensorrt_rtx", "cuda"),
    ]  # fmt: skip
    report = (bundle / "verify.md").read_text()
    assert "## onnxruntime on cpu\n\n| windows |" in report
    for one in found["lacking"]:
        assert f"- {one['engine']} on {one['device']}: {one['reason']}" in report
        assert f"not run: {one['engine']} on {one['device']}: {one['reason']}" in told


def test_one_engine_is_asked_for_and_another_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = disturbed(tmp_path / "same", 0.0)
    more = ("--reference", str(DEFAULT_BUNDLE), "--engine", "onnxruntime", "--json")
    assert main(["verify", str(bundle), *more]) == 0
    found = json.loads(capsys.readouterr().out)["compared"]
    assert [one["engine"] for one in found["engines"]] == ["onnxruntime"]
    assert found["lacking"] == []


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_an_engine_that_cannot_run_here_is_refused_when_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = disturbed(tmp_path / "same", 0.0)
    more = ("--reference", str(DEFAULT_BUNDLE), "--device", "cuda")
    assert main(["verify", str(bundle), *more]) == 2
    assert "can run" in (told := capsys.readouterr().err)
    assert "onnxruntime on cuda: this ONNX Runtime has no CUDAExecutionProvider" in told
    assert not (bundle / "verify.json").exists()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_a_bundle_that_nothing_runs_here_is_refused_with_every_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundle_with_encoder(tmp_path / "low", "bf16").directory
    assert main(["verify", str(bundle)]) == 2
    told = capsys.readouterr().err
    for engine in ("onnxruntime on cpu", "onnxruntime on cuda", "tensorrt on", "tensorrt_rtx on"):
        assert f"{engine}" in told
    assert "is in bf16, which ONNX Runtime does not compute in on cpu" in told


def test_hard_windows_are_what_their_names_say() -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    size = bundle.manifest.preprocess
    windows = hard_windows(bundle)
    shape = (1, bundle.manifest.window.sampled_frames, size.height, size.width, 3)
    assert {images.shape for images in windows.values()} == {shape}
    assert windows["black"].max() == 0
    assert windows["white"].min() == 255
    lit = windows["wide strip"].any(axis=(0, 1, 3, 4))
    assert lit.sum() == size.height // 16
    assert windows["tall strip"].any(axis=(0, 1, 2, 4)).sum() == size.width // 16


def test_errors_and_cosines_are_those_of_the_features() -> None:
    images = {"one": np.zeros((3, 1, 8, 8, 3), np.uint8)}

    def ours(part: np.ndarray) -> np.ndarray:
        return np.tile(np.array([3.0, 4.0], np.float32), (len(part), 1))

    def theirs(part: np.ndarray) -> np.ndarray:
        return np.tile(np.array([5.0, 0.0], np.float32), (len(part), 1))

    (found,) = parity(ours, theirs, images, lambda count: None)
    assert found == Parity("one", 3, 4.0, pytest.approx(0.6), pytest.approx(0.6))


def test_of_int8_only_real_windows_are_judged() -> None:
    noise, real = Parity("noise", 1, 9.0, 0.5, 0.5), Parity("real", 1, 0.5, 0.995, 0.98)
    check("int8", [noise, real])
    with pytest.raises(BundleError, match=r"noise windows have a cosine of 0\.50000"):
        check("fp16", [noise, real])
    with pytest.raises(BundleError, match=r"real windows differ by 0\.5"):
        check("fp32", [Parity("real", 1, 0.5, 0.99999, 0.9999)])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--backtest", "clips"), "give --reference BUNDLE, or --model as well"),
        (("--reference", "a", "--model", "b"), "are two references; give one"),
        (("--threads", "2", "--device", "cuda"), "--threads (2) is of onnxruntime on the CPU"),
    ],
)
def test_what_compares_with_nothing_or_with_two_is_refused(
    capsys: pytest.CaptureFixture[str], more: tuple[str, ...], told: str
) -> None:
    assert main(["verify", str(DEFAULT_BUNDLE), *more]) == 2
    assert told in capsys.readouterr().err


def test_a_reference_of_another_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_tiny_bundle(tmp_path / "other").directory
    bundle = disturbed(tmp_path / "same", 0.0)
    assert main(["verify", str(bundle), "--reference", str(other)]) == 2
    assert "sees other windows or pictures" in capsys.readouterr().err
