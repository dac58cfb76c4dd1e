"""What an import is told: where a dataset's features and annotations lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from training.clips import TrainingError


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Common to all datasets.

    Attributes:
        output: folder that the manifest will lie in; stacked features are written below it.
        features: folder of the feature files; None takes listed paths as they stand.
        feature_suffix: ending that makes a video's name its feature file's, as in
            "_i3d.npy"; None takes the listed file names.
        crops_first: one file holds (crops, n, D), as LAP and GV-VAD store CLIP features.
        annotations: file or folder that tells which frames are anomalous.
        videos: folder of the videos themselves.
        captions: folder of released sentence embeddings, a file a video.
        captions_suffix: ending that makes a video's name its caption file's.
        encoder: what made the features.
        fps: of the videos, Hz, where all have one.
    """

    output: Path
    features: Path | None = None
    feature_suffix: str | None = None
    crops_first: bool = False
    annotations: Path | None = None
    videos: Path | None = None
    captions: Path | None = None
    captions_suffix: str = "_emb.npy"
    encoder: str | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.feature_suffix is not None and self.features is None:
            raise TrainingError(
                f"a feature suffix ({self.feature_suffix!r}) needs a feature folder; give both"
            )

    def relative(self, file: Path) -> str:
        """A path as it stands in the manifest: relative to its folder where one leads there."""
        return relative_to(self.output, file)


def relative_to(folder: Path, file: Path) -> str:
    """A path as it stands in a manifest that lies in `folder`.

    Links in a file's folders are followed, the file's own name is kept.
    """
    place = file.parent.resolve() / file.name
    return Path(os.path.relpath(place, folder.resolve())).as_posix()
