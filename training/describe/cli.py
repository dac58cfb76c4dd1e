"""gvvad-train describe: pairs of descriptions for a text-to-video model, with a bar."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from training.clips import TrainingError
from training.describe.answers import Answers
from training.describe.ask import EndpointWriter, Spent
from training.describe.coverage import Coverage, Origin, coverage_markdown, coverage_of
from training.describe.describe import Described, Order, describe
from training.describe.endpoint import Patience, place_of
from training.describe.gates import Gates, Limits
from training.describe.grammar import GrammarWriter
from training.describe.pairs import Writer
from training.describe.taxonomy import SURVEILLANCE, Taxonomy, load_taxonomy
from training.describe.tokens import estimated_tokens, exact_tokens
from training.manifest import load_manifest, write_manifest

_SUFFIX = ".jsonl"


def add_describe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "describe",
        help="pairs of descriptions, anomalous and normal, to generate videos from",
        description="Write descriptions of surveillance footage from four elements: camera "
        "viewpoint, location, subject, anomalous event. They come in pairs, anomalous and normal, "
        "of one scene. A report of what they cover and its picture go beside FILE. The same "
        "arguments give the same bytes, and a higher count begins with the lower one's rows.",
    )
    parser.add_argument("--count", type=int, required=True, help="descriptions, an even number")
    parser.add_argument("--seed", type=int, default=0, help="of every choice (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="manifest, .jsonl")
    parser.add_argument(
        "--writer",
        choices=("grammar", "openai"),
        default="grammar",
        help="the taxonomy's own phrases, offline, or any OpenAI-compatible endpoint (default "
        "%(default)s)",
    )
    parser.add_argument(
        "--taxonomy", type=Path, default=SURVEILLANCE, help="YAML; see the default, %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    _add_gates(parser)
    _add_endpoint(parser)


def _add_gates(parser: argparse.ArgumentParser) -> None:
    gates, usual = parser.add_argument_group("gates"), Limits()
    gates.add_argument(
        "--max-tokens",
        type=int,
        default=usual.max_tokens,
        help="that the generator's text encoder reads (default %(default)s, CogVideoX's)",
    )
    gates.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="count with this one, or that of these weights; without it tokens are estimated",
    )
    gates.add_argument(
        "--max-similarity",
        type=float,
        default=usual.max_similarity,
        help="to any other description of its label, as the share of neighbouring word pairs "
        "that two have in common (default %(default)s)",
    )


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    endpoint = parser.add_argument_group(
        "endpoint, with --writer openai",
        "GVVAD_WRITER_MODEL, GVVAD_WRITER_BASE_URL and GVVAD_WRITER_API_KEY name it; "
        "OPENAI_BASE_URL and OPENAI_API_KEY count where the last two are not set. Answers are kept "
        "in FILE.answers, so that a rerun asks nothing twice.",
    )
    usual = Patience()
    endpoint.add_argument("--model", help="name at the endpoint, before the environment's")
    endpoint.add_argument("--base-url", metavar="URL", help="before the environment's")
    endpoint.add_argument(
        "--concurrency",
        type=int,
        default=usual.concurrency,
        help="requests at the same time; the outcome is the same for any (default %(default)s)",
    )
    endpoint.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        default=usual.timeout_seconds,
        help="for one try (default %(default)s)",
    )
    endpoint.add_argument(
        "--retries",
        type=int,
        default=usual.retries,
        help="after a first try that met 429, 5xx or silence (default %(default)s)",
    )
    endpoint.add_argument(
        "--prices",
        type=float,
        nargs=2,
        metavar=("IN", "OUT"),
        help="of a million tokens read and written, in any currency, to show the cost",
    )


@dataclass(frozen=True, slots=True)
class _Tokens:
    """How tokens are counted, and how to say so."""

    count: Callable[[str], int]
    told: str


def run_describe(options: argparse.Namespace) -> None:
    """Describe.

    Raises:
        TrainingError: an argument, the taxonomy, the endpoint or the tokenizer cannot be used.
    """
    order = Order(options.count, options.seed)
    limits = Limits(options.max_tokens, options.max_similarity)
    _check_out(options.out)
    if options.prices is not None and min(options.prices) < 0:
        raise TrainingError("--prices must be 0 or more")
    taxonomy = load_taxonomy(options.taxonomy)
    tokens = _Tokens(estimated_tokens, "an estimate from above for T5")
    if options.tokenizer is not None:
        told = f"counted by the tokenizer of {options.tokenizer.name}"
        tokens = _Tokens(exact_tokens(options.tokenizer), told)
    with _writer(options, taxonomy) as writer:
        gates = Gates(taxonomy, limits, tokens.count)
        with tqdm(total=order.count // 2, desc="describe", unit="pair", disable=None) as bar:
            described = describe(taxonomy, order, writer, gates, lambda: _advance(bar, writer))
    coverage = coverage_of(described.rows, taxonomy, tokens.count)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    notes = _spent_notes(writer, options.prices)
    origin = Origin(options.out.name, writer.name, order.seed, tokens.told, notes.lasting)
    _write(options.out, described, taxonomy, coverage, origin)
    if options.json:
        print(json.dumps(_json(options.out, described, coverage, writer)))
    else:
        _print(options.out, described, coverage, notes)


def _check_out(path: Path) -> None:
    """Refuse to write over anything but descriptions, which the same command makes again."""
    if path.suffix != _SUFFIX:
        raise TrainingError(f"--out ({path}) must end in {_SUFFIX}: a manifest is written")
    if not path.exists():
        return
    try:
        rows = load_manifest(path).rows
    except TrainingError as error:
        raise TrainingError(f"--out is there and no manifest ({error}); choose another") from None
    for row in rows:
        if row.video is not None or row.features is not None or not row.synthetic:
            raise TrainingError(
                f"--out {path} holds {row.id!r}, which is more than a description; choose another "
                "file, so that nothing is lost from it"
            )


@contextmanager
def _writer(options: argparse.Namespace, taxonomy: Taxonomy) -> Iterator[Writer]:
    if options.writer == "grammar":
        yield GrammarWriter(taxonomy, options.seed)
        return
    patience = Patience(options.timeout, options.retries, options.concurrency)
    place = place_of(os.environ, options.model, options.base_url)
    answers = Answers(options.out.with_name(f"{options.out.name}.answers"))
    writer = EndpointWriter(taxonomy, options.seed, (place, patience), answers)
    try:
        yield writer
    finally:
        writer.close()


def _advance(bar: tqdm[None], writer: Writer) -> None:
    bar.update()
    if isinstance(writer, EndpointWriter):
        told = {"in": writer.asked.input_tokens, "out": writer.asked.output_tokens}
        bar.set_postfix(told, refresh=False)


@dataclass(frozen=True, slots=True)
class _Notes:
    """What an endpoint's answers cost: for the report, which a rerun repeats, and for this run."""

    lasting: tuple[str, ...] = ()
    run: tuple[str, ...] = ()


def _spent_notes(writer: Writer, prices: list[float] | None) -> _Notes:
    if not isinstance(writer, EndpointWriter):
        return _Notes()
    whole = _told(writer.asked.and_also(writer.kept), prices)
    run = [
        f"asked now: {_told(writer.asked, prices)}",
        f"kept from before: {_told(writer.kept, prices)}",
    ]
    if not writer.by_schema:
        run.append("the endpoint refused a JSON schema; it was asked for plain JSON instead")
    return _Notes((f"The endpoint's answers took {whole}.",), tuple(run))


def _told(spent: Spent, prices: list[float] | None) -> str:
    told = f"{spent.answers} answers, {spent.input_tokens} tokens in, {spent.output_tokens} out"
    return told if prices is None else f"{told}, cost {spent.cost(*prices):.4f}"


def _write(
    out: Path, described: Described, taxonomy: Taxonomy, coverage: Coverage, origin: Origin
) -> None:
    from training.describe.picture import draw_coverage

    report, picture = _beside(out, "md"), _beside(out, "png")
    scratch = picture.with_name(f".{picture.name}")
    title = f"{out.name}: {len(described.rows) // 2} pairs by {origin.writer}, seed {origin.seed}"
    draw_coverage(scratch, coverage, taxonomy, title)
    scratch.replace(picture)
    scratch = report.with_name(f".{report.name}")
    scratch.write_text(coverage_markdown(described, taxonomy, coverage, origin))
    scratch.replace(report)
    write_manifest(out, described.rows)


def _beside(out: Path, ending: str) -> Path:
    # Not FILE.md: a README.jsonl would write over a README.md.
    return out.with_name(f"{out.stem}.coverage.{ending}")


def _json(out: Path, described: Described, coverage: Coverage, writer: Writer) -> dict[str, object]:
    found: dict[str, object] = {
        "manifest": str(out),
        "report": str(_beside(out, "md")),
        "picture": str(_beside(out, "png")),
        "rows": len(described.rows),
        "rejected": {str(gate): count for gate, count in described.rejected.items()},
        "coverage": coverage.to_json(),
    }
    if isinstance(writer, EndpointWriter):
        found |= {"asked": asdict(writer.asked), "kept": asdict(writer.kept)}
    return found


def _print(out: Path, described: Described, coverage: Coverage, notes: _Notes) -> None:
    for note in notes.run:
        print(note, file=sys.stderr)
    for gate, count in described.rejected.items():
        print(f"refused: {gate:24}{count:7}")
    for counts in coverage.elements:
        numbers = sorted(counts.pairs.values())
        print(
            f"{counts.what:12}{counts.covered:4} of {len(numbers)}, "
            f"{numbers[0]} to {numbers[-1]} pairs each"
        )
    print(f"{len(described.rows)} descriptions in {out}, report in {_beside(out, 'md')}")
