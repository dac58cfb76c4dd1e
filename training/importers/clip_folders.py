"""A folder of clips whose ground-truth files say all that is known of them."""

from __future__ import annotations

from pathlib import Path

from server.truth import TRUTH_FILE
from training.clips import TrainingError
from training.importers.options import relative_to
from training.manifest import Row, clip_rows


def import_clips(data: Path, output: Path) -> list[Row]:
    """Rows of the clips under a folder, paths relative to the manifest's.

    Args:
        data: folder whose ground_truth.json, or those one folder down, name clips.
        output: folder that the manifest will lie in.

    Raises:
        TrainingError: see `find_clips`; also a clip that is named and missing.
    """
    return [_placed(row, data, output) for row in clip_rows(data)]


def _placed(row: Row, data: Path, output: Path) -> Row:
    file = data / row.id
    if not file.is_file():
        raise TrainingError(
            f"{row.id!r} stands in a {TRUTH_FILE} under {data} and is missing; bring the clip or "
            "take out its entry"
        )
    return row.model_copy(update={"video": relative_to(output, file)})
