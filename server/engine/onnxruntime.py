"""Run a bundle with ONNX Runtime on the CPU, and what its sessions have in common on CUDA.

ONNX Runtime falls back to the CPU in silence when a provider cannot be had;
here what was asked for runs, or nothing does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from server.bank import Explanation
from server.bundle import Bundle, BundleError, Precision
from server.contract import (
    EXPLANATION_INDEX,
    EXPLANATION_WEIGHT,
    FEATURE,
    IMAGES,
    NEXT_STATE_PREFIX,
    SCORE,
    STATE_PREFIX,
    Feature,
    Image,
    State,
    TensorSpec,
)
from server.engine.flags import Device
from server.scoring import Detector, Step
from server.wording import one_line

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_REMEDY = "export the bundle again"
_PRECISIONS: dict[Device, tuple[Precision, ...]] = {
    "cpu": ("fp32", "fp16", "int8", "int8-symmetric"),
    # It has int8 for no product of a graph like ours and would compute it in fp32.
    "cuda": ("fp32", "fp16"),
}
_OTHERS: dict[Device, str] = {
    "cpu": "export it with --precision fp32, fp16 or int8, or set engine.name=tensorrt",
    "cuda": "export it with --precision fp32 or fp16, or set engine.name=tensorrt",
}
_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}


class EngineError(RuntimeError):
    """The engine asked for cannot run, or failed while running."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run.

    Attributes:
        threads: threads of one encoder call; None leaves it to ONNX Runtime.
    """

    threads: int | None = None


class OnnxHead:
    """The head step of a bundle, on the CPU whatever the encoder runs on. Not thread-safe.

    Its few thousand multiplications beat a copy to a device.

    Raises:
        BundleError: the graph is broken or has other inputs or outputs than the manifest says.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._session = open_session(bundle.head_path, "cpu", threads=1)
        check_graph(bundle.head_path, self._session, *bundle.manifest.head_tensors())
        self._states = dict(bundle.manifest.head.states)
        self._sentences = bundle.sentences

    def step(self, features: Feature, state: State) -> Step:
        """(B, D) and the state -> scores (B,) in [0, 1], the next state, and explanations.

        Raises:
            EngineError: ONNX Runtime failed, or what comes out is no score or no state:
                neither must ever be published or remembered.
        """
        feeds = {FEATURE: features} | {STATE_PREFIX + k: v for k, v in state.items()}
        outputs = [SCORE, *(NEXT_STATE_PREFIX + name for name in self._states)]
        if self._sentences is not None:
            outputs += [EXPLANATION_INDEX, EXPLANATION_WEIGHT]
        scores, *others = _run(self._session, outputs, feeds)
        after, told = others[: len(self._states)], others[len(self._states) :]
        if scores.shape != (len(features),) or not ((scores >= 0) & (scores <= 1)).all():
            raise EngineError(
                f"the head made {_some(scores)} of {len(features)} windows, "
                f"expected as many scores in [0, 1]; {_REMEDY}"
            )
        for name, tensor in zip(self._states, after, strict=True):
            if not np.isfinite(tensor).all():
                raise EngineError(
                    f"the head made {_some(tensor)} of state {one_line(name)}, "
                    f"expected finite numbers; {_REMEDY}"
                )
        return Step(
            scores, dict(zip(self._states, after, strict=True)), self._explanations(scores, told)
        )

    def _explanations(self, scores: Feature, told: list[Any]) -> list[Explanation]:
        if self._sentences is None:
            return [() for _ in scores]
        indices, weights = told
        known = (indices >= 0) & (indices < len(self._sentences.texts))
        if not known.all() or not ((weights >= 0) & (weights <= 1)).all():
            raise EngineError(
                f"the head names sentences {_some(indices)}, weights {_some(weights)}; expected "
                f"0 to {len(self._sentences.texts) - 1} with weights in [0, 1]; {_REMEDY}"
            )
        return [self._sentences.explain(*row) for row in zip(indices, weights, strict=True)]

    def zero_state(self) -> State:
        """State of one stream at its start, (1, ...) each."""
        return {name: np.zeros((1, *shape), np.float32) for name, shape in self._states.items()}


class OnnxDetector:
    """Encoder and head of a bundle in two sessions on the CPU. Not thread-safe.

    Raises:
        EngineError: the precision is none of ONNX Runtime's on a CPU.
        BundleError: a graph is broken or has other inputs or outputs than the
            manifest says.
    """

    name = "onnxruntime"
    device: Device = "cpu"

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        manifest = bundle.manifest
        check_precision(bundle, self.device)
        self._encoder = open_session(bundle.encoder_path, self.device, threads=options.threads)
        check_graph(bundle.encoder_path, self._encoder, *manifest.encoder_tensors())
        head = OnnxHead(bundle)
        self.step, self.zero_state = head.step, head.zero_state
        self.precision = manifest.encoder.graph.precision
        size = manifest.preprocess
        self._image_shape = (manifest.window.sampled_frames, size.height, size.width, 3)

    def warm_up(self, max_batch: int) -> None:
        """Run every path once, so that the first window is not the slow one.

        Raises:
            EngineError: ONNX Runtime failed, or what comes out is no score.
        """
        run_once(self, self._image_shape, max_batch)

    def encode(self, images: Image) -> Feature:
        """(B, S, H, W, 3) uint8 -> (B, D) float32.

        Raises:
            EngineError: ONNX Runtime failed, or a feature is not finite.
        """
        features: Feature = _run(self._encoder, [FEATURE], {IMAGES: images})[0]
        check_features(features, len(images))
        return features

    def close(self) -> None:
        """Nothing to give back: all it holds goes with it."""


def run_once(detector: Detector, image_shape: tuple[int, ...], max_batch: int) -> None:
    """Run encoder and head on one window and on as many as there will be."""
    for batch in {1, max_batch}:
        images = np.zeros((batch, *image_shape), np.uint8)
        state = {k: np.repeat(v, batch, axis=0) for k, v in detector.zero_state().items()}
        detector.step(detector.encode(images), state)


def check_features(features: Feature, count: int) -> None:
    """Refuse what no head may see.

    Raises:
        EngineError: they are not `count`, or one is not finite.
    """
    if len(features) != count or not np.isfinite(features).all():
        raise EngineError(
            f"the encoder made {_some(features)} of {count} windows, expected as many "
            f"finite features; {_REMEDY}"
        )


def check_precision(bundle: Bundle, device: Device) -> None:
    """Refuse what ONNX Runtime has no kernels for there, or would compute in another precision.

    Raises:
        EngineError: the precision is none of that device's.
    """
    precision = bundle.manifest.encoder.graph.precision
    if precision not in _PRECISIONS[device]:
        raise EngineError(
            f"{bundle.encoder_path} is in {precision}, which ONNX Runtime does not compute in on "
            f"{device} ({', '.join(_PRECISIONS[device])}); {_OTHERS[device]}"
        )


def check_provider(device: Device) -> None:
    """Refuse a device that this build of ONNX Runtime knows nothing of.

    Raises:
        EngineError: it was built without it.
    """
    provider = _PROVIDERS[device]
    if provider not in ort.get_available_providers():
        raise EngineError(
            f"this ONNX Runtime has no {provider}; install the project with its "
            f"{'gpu' if device == 'cuda' else 'cpu'} extra, or set engine.device to another one"
        )


def open_session(
    path: Path,
    device: Device,
    *,
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
) -> ort.InferenceSession:
    """A graph on that device and no other.

    Raises:
        EngineError: the device cannot be had.
        BundleError: the graph is broken; its cause is ONNX Runtime's own error.
    """
    check_provider(device)
    provider = _PROVIDERS[device]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from the decoders between two windows.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Errors come as exceptions; logged as well they would be told twice.
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            str(path),
            options,
            providers=[(provider, dict(provider_options or {}))],
            # To the CPU, and it prints that it does.
            enable_fallback=False,
        )
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        raise BundleError(
            f"{path} cannot be loaded by ONNX Runtime ({in_words(error)}); {_REMEDY}"
        ) from error
    if session.get_providers()[0] != provider:
        raise EngineError(
            f"engine.device is {device}, but ONNX Runtime fell back to "
            f"{session.get_providers()[0]}; mend the driver or set engine.device=cpu"
        )
    return session


def check_graph(
    path: Path,
    session: ort.InferenceSession,
    inputs: list[TensorSpec],
    outputs: list[TensorSpec],
) -> None:
    """Hold a session's graph against the manifest.

    Raises:
        BundleError: an input or output is missing, another or more than expected.
    """
    check_tensors(path, "input", inputs, _specs(path, session.get_inputs()))
    check_tensors(path, "output", outputs, _specs(path, session.get_outputs()))


def check_tensors(
    path: Path, kind: str, expected: list[TensorSpec], found: dict[str, TensorSpec]
) -> None:
    """Hold a graph's inputs, or outputs, against the manifest.

    Raises:
        BundleError: one is missing, another or more than expected.
    """
    for tensor in expected:
        if tensor.name not in found:
            raise BundleError(
                f"{path} lacks {kind} {_listed([tensor])}; it has {_listed(found.values())}; "
                f"{_REMEDY}"
            )
        if found[tensor.name] != tensor:
            raise BundleError(
                f"{path} has {kind} {_listed([found[tensor.name]])}, the manifest says "
                f"{_listed([tensor])}; {_REMEDY}"
            )
    if len(found) != len(expected):
        extra = sorted(set(found) - {tensor.name for tensor in expected})
        raise BundleError(
            f"{path} has {kind} {_listed(extra)}, which the manifest lacks; {_REMEDY}"
        )


def _specs(path: Path, nodes: list[Any]) -> dict[str, TensorSpec]:
    try:
        return {node.name: _spec(node) for node in nodes}
    except UnicodeDecodeError:  # ONNX Runtime itself takes any bytes for a name
        raise BundleError(
            f"{path} has an input or output whose name is no text; {_REMEDY}"
        ) from None


def _spec(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), shape)


def _listed(tensors: Iterable[TensorSpec | str]) -> str:
    return one_line(", ".join(map(str, tensors))) or "none"


def _run(session: ort.InferenceSession, outputs: list[str], feeds: dict[str, Any]) -> list[Any]:
    try:
        results: list[Any] = session.run(outputs, feeds)
    except Exception as error:  # as above
        raise EngineError(
            f"ONNX Runtime failed ({in_words(error)}); check the bundle and the device"
        ) from error
    return results


def _some(numbers: npt.NDArray[Any]) -> str:
    """The first of them that are out of place, or else just the first."""
    flat = numbers.ravel()
    strange = flat[~np.isfinite(flat)]
    return one_line(str((strange if len(strange) else flat)[:3]))


def in_words(error: Exception) -> str:
    """What an error of ONNX Runtime says, in one line; of CUDA's the part that matters."""
    text = str(error).strip()
    of_cuda = re.search(r"CU[A-Z]* failure [^;\n]*", text)
    lines = [of_cuda[0].strip()] if of_cuda else text.splitlines()
    return one_line(lines[0]) if lines else type(error).__name__
