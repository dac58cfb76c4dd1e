"""Released checkpoints: built here under their names, by the layers that their code has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.clips import TrainingError
from training.head import HeadSpec, rtfm, tevad
from training.released import load_released

WIDTH, TEXT = 16, 8
HEADS = {
    "rtfm": rtfm(WIDTH),
    "tevad": tevad(WIDTH, TEXT),
    "added": tevad(WIDTH, TEXT, fusion="add"),
}


class NonLocal(nn.Module):
    """Their block of dimension 1, without softmax."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g, self.theta, self.phi = (nn.Conv1d(width, width // 2, 1) for _ in range(3))
        self.W = nn.Sequential(nn.Conv1d(width // 2, width, 1), nn.BatchNorm1d(width))

    def forward(self, x: Tensor) -> Tensor:
        affinity = self.theta(x).transpose(1, 2) @ self.phi(x) / x.shape[2]
        return self.W((affinity @ self.g(x).transpose(1, 2)).transpose(1, 2)) + x


class Aggregate(nn.Module):
    """Their temporal network, layer by layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter = width // 4

        def dilated(rate: int) -> nn.Sequential:
            conv = nn.Conv1d(width, quarter, 3, dilation=rate, padding=rate)
            return nn.Sequential(conv, nn.ReLU(), nn.BatchNorm1d(quarter))

        self.conv_1, self.conv_2, self.conv_3 = dilated(1), dilated(2), dilated(4)
        self.conv_4 = nn.Sequential(nn.Conv1d(width, quarter, 1, bias=False), nn.ReLU())
        fuse = nn.Conv1d(width, width, 3, padding=1, bias=False)
        self.conv_5 = nn.Sequential(fuse, nn.ReLU(), nn.BatchNorm1d(width))
        self.non_local = NonLocal(quarter)

    def forward(self, x: Tensor) -> Tensor:
        turned = x.transpose(1, 2)
        found = [conv(turned) for conv in (self.conv_1, self.conv_2, self.conv_3)]
        joined = torch.cat([*found, self.non_local(self.conv_4(turned))], 1)
        return (self.conv_5(joined) + turned).transpose(1, 2)


class Released(nn.Module):
    """Their model, as far as scoring goes."""

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__()
        self.spec = spec
        self.Aggregate = Aggregate(WIDTH)
        self.Aggregate_text = Aggregate(TEXT)  # built whether it is used or not
        if spec.fusion == "add":
            self.fc0 = nn.Linear(WIDTH, TEXT)
        widths = (spec.fused_dim, 512, 128, 1)
        self.fc1, self.fc2, self.fc3 = (nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, visual: Tensor, text: Tensor) -> Tensor:
        features = self.Aggregate(visual)
        if self.spec.text != "none":
            read = self.Aggregate_text(text)
            if self.spec.fusion == "add":
                features = torch.relu(self.fc0(features)) + read
            else:
                features = torch.cat([features, read], 2)
        hidden = torch.relu(self.fc2(torch.relu(self.fc1(features))))
        return torch.sigmoid(self.fc3(hidden)).squeeze(2)


def a_model(name: str) -> Released:
    torch.manual_seed(0)
    model = Released(HEADS[name])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", HEADS)
def test_a_released_checkpoint_scores_as_its_own_model_does(
    name: str, prefix: str, wrap: Callable[[dict[str, Tensor]], object], tmp_path: Path
) -> None:
    model = a_model(name)
    state = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save(wrap(state), tmp_path / "model.pkl")
    head = load_released(tmp_path / "model.pkl", HEADS[name])
    visual, text = torch.randn(3, 1, 20, WIDTH), torch.randn(3, 20, TEXT)
    with torch.no_grad():
        found = head(visual, None if name == "rtfm" else text).scores
        torch.testing.assert_close(found, model(visual[:, 0], text))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: state.pop("fc2.bias"), "lacks 'fc2.bias'"),
        (lambda state: state.update(extra=torch.zeros(1)), "'extra' is of no layer"),
        (lambda state: state.update({"fc1.bias": torch.zeros(7)}), r"'fc1.bias' is \(7,\)"),
        (lambda state: state.update({"fc1.bias": "text"}), "must hold a state_dict"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    spoil: Callable[[dict[str, object]], object], said: str, tmp_path: Path
) -> None:
    state = dict(a_model("tevad").state_dict())
    spoil(state)
    torch.save(state, tmp_path / "model.pkl")
    with pytest.raises(TrainingError, match=said):
        load_released(tmp_path / "model.pkl", HEADS["tevad"])


def test_a_head_of_another_base_or_width_is_refused(tmp_path: Path) -> None:
    torch.save(a_model("rtfm").state_dict(), tmp_path / "model.pkl")
    for spec in (HEADS["tevad"], rtfm(24), replace(HEADS["rtfm"], hidden=(256, 128))):
        with pytest.raises(TrainingError, match="the head expects"):
            load_released(tmp_path / "model.pkl", spec)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("harm",))


def test_a_checkpoint_never_runs_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"fc1.weight": Harmful()}, tmp_path / "model.pkl")
    (tmp_path / "bytes.pkl").write_bytes(b"no checkpoint")
    for name in ("model.pkl", "bytes.pkl", "gone.pkl"):
        with pytest.raises(TrainingError, match=r"cannot be read as a checkpoint") as caught:
            load_released(tmp_path / name, HEADS["rtfm"])
        assert "\n" not in str(caught.value)
    assert "harm" not in capsys.readouterr().out
