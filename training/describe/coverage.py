"""What descriptions cover, counted from their rows: tables that a person reads, and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from training.describe.describe import Described
from training.describe.taxonomy import Taxonomy
from training.manifest import Row

_SHOWN_PAIRS = 3


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each name of one element was drawn.

    Attributes:
        what: the element.
        pairs: by name, in the taxonomy's order, those that never came included.
    """

    what: str
    pairs: Mapping[str, int]

    @property
    def covered(self) -> int:
        """Names that came at least once."""
        return sum(count > 0 for count in self.pairs.values())


@dataclass(frozen=True, slots=True)
class Lengths:
    """Least, median and most over the descriptions of one label."""

    label: str
    words: tuple[int, float, int]
    tokens: tuple[int, float, int]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Counts over pairs.

    Attributes:
        classes, viewpoints, locations, kinds: of each element.
        places: pairs by class and location.
        lengths: anomalous, normal.
    """

    classes: Counts
    viewpoints: Counts
    locations: Counts
    kinds: Counts
    places: Mapping[tuple[str, str], int]
    lengths: tuple[Lengths, Lengths]

    @property
    def elements(self) -> tuple[Counts, ...]:
        return (self.classes, self.viewpoints, self.locations, self.kinds)

    def to_json(self) -> dict[str, object]:
        """Counts by element and name."""
        return {counts.what: dict(counts.pairs) for counts in self.elements}


def coverage_of(
    rows: Sequence[Row], taxonomy: Taxonomy, count_tokens: Callable[[str], int]
) -> Coverage:
    """Count what was drawn and how long it came out.

    Args:
        rows: of both labels, each pair's elements in either.
        taxonomy: that they were drawn from.
        count_tokens: the count that the length gate used.
    """
    pairs = [row for row in rows if row.label == "anomalous"]

    def counts(what: str, known: Iterable[str], names: Sequence[str | None]) -> Counts:
        found = Counter(names)
        return Counts(what, {name: found[name] for name in known})

    def lengths(label: str) -> Lengths:
        texts = [row.description or "" for row in rows if row.label == label]
        words = sorted(len(text.split()) for text in texts)
        tokens = sorted(count_tokens(text) for text in texts)
        return Lengths(label, _spread(words), _spread(tokens))

    kinds = dict.fromkeys(subject.kind for subject in taxonomy.subjects.values())
    return Coverage(
        counts("classes", taxonomy.classes, [row.class_name for row in pairs]),
        counts("viewpoints", taxonomy.viewpoints, [row.viewpoint for row in pairs]),
        counts("locations", taxonomy.locations, [row.location for row in pairs]),
        counts("kinds", kinds, [taxonomy.subjects[row.subject or ""].kind for row in pairs]),
        Counter((row.class_name, row.location or "") for row in pairs),
        (lengths("anomalous"), lengths("normal")),
    )


def _spread(ordered: Sequence[int]) -> tuple[int, float, int]:
    return ordered[0], median(ordered), ordered[-1]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where descriptions come from, for the report.

    Attributes:
        manifest: the file's name.
        writer: who wrote them.
        seed: of every choice.
        tokens: how tokens were counted.
        notes: whole sentences, such as what an endpoint counted.
    """

    manifest: str
    writer: str
    seed: int
    tokens: str
    notes: tuple[str, ...]


def coverage_markdown(
    described: Described, taxonomy: Taxonomy, coverage: Coverage, origin: Origin
) -> str:
    """The report, to stand beside its picture."""
    pairs = len(described.rows) // 2
    picture = f"{origin.manifest.removesuffix('.jsonl')}.coverage.png"
    covered = ", ".join(
        f"{one.covered} of {len(one.pairs)} {one.what}" for one in coverage.elements
    )
    parts = [
        f"# {len(described.rows)} descriptions in {pairs} pairs",
        f"`{origin.manifest}`, written by {origin.writer} with seed {origin.seed} from the "
        f"taxonomy {taxonomy.sha256[:12]}. It covers {covered} of subjects.",
        *origin.notes,
        "## What the gates refused",
        _gates(described, pairs),
        "## Lengths",
        f"Least, median, most. Tokens are {origin.tokens}.",
        _lengths(coverage),
        "## Coverage",
        "Wanted is the share by the taxonomy's weights. Of locations, viewpoints and subjects only "
        "those are drawn that fit what is drawn before them.",
        f"![pairs by class and location, by viewpoint and by kind of subject]({picture})",
        _classes(coverage.classes, taxonomy),
        _plain(coverage.viewpoints),
        _plain(coverage.locations),
        _plain(coverage.kinds),
        "## Some pairs",
        *_shown(described.rows),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    rule = "|".join(["---"] * len(head))
    body = (f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *body])


def _gates(described: Described, pairs: int) -> str:
    refused = sum(described.rejected.values())
    lines: list[tuple[object, ...]] = [(gate, n) for gate, n in described.rejected.items()]
    return _table(["gate", "pairs refused"], [*lines, (f"all, of {pairs + refused}", refused)])


def _lengths(coverage: Coverage) -> str:
    head = ["label", "words", "tokens"]
    lines = [
        (one.label, *("{} / {:g} / {}".format(*three) for three in (one.words, one.tokens)))
        for one in coverage.lengths
    ]
    return _table(head, lines)


def _classes(counts: Counts, taxonomy: Taxonomy) -> str:
    weight = sum(one.weight for one in taxonomy.classes.values())
    pairs = sum(counts.pairs.values())
    lines = []
    for name, one in taxonomy.classes.items():
        names = [f"{data} {title}" for data, titles in one.names.items() for title in titles]
        wanted = f"{pairs * one.weight / weight:.1f}"
        lines.append((name, counts.pairs[name], wanted, ", ".join(names) or "-"))
    return _table(["class", "pairs", "wanted", "stands for"], lines)


def _plain(counts: Counts) -> str:
    return _table([counts.what, "pairs"], list(counts.pairs.items()))


def _shown(rows: Sequence[Row]) -> list[str]:
    pairs = [rows[index : index + 2] for index in range(0, len(rows), 2)]
    chosen = pairs[:: max(1, len(pairs) // _SHOWN_PAIRS)][:_SHOWN_PAIRS]
    return [
        f"**{anomalous.class_name}**, {anomalous.location}: {anomalous.description}\n\n"
        f"*normal*: {normal.description}"
        for anomalous, normal in chosen
    ]
