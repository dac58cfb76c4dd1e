"""describe with a language model behind an endpoint, however that behaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.openai_endpoint import (
    Behaviour,
    Endpoint,
    broken,
    completion,
    elements,
    failure,
    good,
    hanging,
    nonsense,
    plain_json_only,
    rate_limited,
    serving,
    unauthorised,
    web_page,
    wrong_schema,
)
from tests.support.taxonomies import write_small
from training.cli import main
from training.manifest import load_manifest

KEY = "sk-very-secret-1234"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GVVAD_WRITER_BASE_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GVVAD_WRITER_MODEL", "some-model")
    monkeypatch.setenv("GVVAD_WRITER_API_KEY", KEY)


def command(endpoint: Endpoint, out: Path, *more: str, count: int = 8) -> list[str]:
    given = ["describe", "--writer", "openai", "--count", str(count), "--seed", "4"]
    given += ["--base-url", endpoint.base_url, "--retries", "1", "--out", str(out)]
    taxonomy = out.with_name("few.yaml")
    if not taxonomy.exists():
        taxonomy.parent.mkdir(exist_ok=True)
        write_small(taxonomy)
    return [*given, "--taxonomy", str(taxonomy), *more]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert KEY not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("gvvad-train: ")]
    return sentence


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_model_s_answers_become_rows_of_what_was_asked(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with serving(good) as endpoint:
        assert main(command(endpoint, out)) == 0
        requests = endpoint.requests
    rows = load_manifest(out).rows
    assert [row.label for row in rows] == ["anomalous", "normal"] * 4
    asked = {elements(request)["anomalous event"] for request in requests}
    assert asked == {f"{row.event} ({row.class_name})" for row in rows if row.class_name}
    assert {request["model"] for request in requests} == {"some-model"}
    assert {request["authorization"] for request in requests} == {f"Bearer {KEY}"}
    schema = requests[0]["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert KEY.encode() not in everything_in(tmp_path)


def test_a_rerun_asks_nothing_and_more_ask_only_for_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    with serving(good) as endpoint:
        assert main(command(endpoint, out, "--prices", "5", "10")) == 0
        asked, first = len(endpoint.requests), everything_in(tmp_path)
        said = capsys.readouterr().err
        assert f"asked now: {asked} answers, {200 * asked} tokens in, {100 * asked} out" in said
        assert f"cost {asked * 0.002:.4f}" in said
        assert main(command(endpoint, out, "--prices", "5", "10")) == 0
        assert len(endpoint.requests) == asked
        assert f"kept from before: {asked} answers" in capsys.readouterr().err
        assert everything_in(tmp_path) == first
        eight = out.read_text()
        assert main(command(endpoint, out, count=12)) == 0
        assert len(endpoint.requests) > asked
    assert out.read_text().startswith(eight)


def test_however_many_are_asked_at_once_the_outcome_is_the_same(tmp_path: Path) -> None:
    made = []
    for name, concurrency in (("a", "1"), ("b", "7")):
        with serving(good) as endpoint:
            out = tmp_path / name / "rows.jsonl"
            assert main(command(endpoint, out, "--concurrency", concurrency, count=40)) == 0
        made.append(out.read_text())
    assert made[0] == made[1]


def test_a_broken_answer_on_disk_is_asked_for_again(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with serving(good) as endpoint:
        assert main(command(endpoint, out)) == 0
        asked, rows = len(endpoint.requests), out.read_text()
        broken_file = sorted((tmp_path / "a.jsonl.answers").iterdir())[0]
        broken_file.write_text(broken_file.read_text()[:40])
        assert main(command(endpoint, out)) == 0
        assert len(endpoint.requests) == asked + 1
    assert out.read_text() == rows


@pytest.mark.parametrize("first", [rate_limited, broken])
def test_what_passes_on_a_second_try_is_no_failure(first: Behaviour, tmp_path: Path) -> None:
    with serving(first, good) as endpoint:
        arguments = command(endpoint, tmp_path / "a.jsonl", "--concurrency", "1")
        assert main(arguments) == 0
        assert len(endpoint.requests) == 5


@pytest.mark.parametrize(
    ("behaviour", "tries", "said"),
    [
        (rate_limited, 2, "still answered 429: {'error': {'message': 'too many requests'"),
        (broken, 2, "still answered 500: "),
        (hanging, 2, "did not answer within 0.2 s, 2 times; raise --timeout"),
        (unauthorised, 1, "refuses the key (401: "),
        (lambda _: failure(404, "no such model"), 1, "has no such model or path (404: "),
        (lambda _: failure(413, "too long"), 1, "refuses the request (413: "),
        (web_page, 1, "answered with no chat completion but '<html>Welcome</html>'; check"),
    ],
)
def test_an_endpoint_that_fails_is_told_in_one_sentence(
    behaviour: Behaviour,
    tries: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "a.jsonl"
    with serving(behaviour) as endpoint:
        arguments = command(endpoint, out, "--timeout", "0.2", "--concurrency", "1")
        sentence = refused(arguments, capsys).replace('"', "'")
        assert f"the endpoint {endpoint.base_url} " in sentence
        assert said in sentence
        assert len(endpoint.requests) == tries
    assert not out.exists()


@pytest.mark.long
def test_an_interrupted_run_does_not_wait_for_a_silent_endpoint(tmp_path: Path) -> None:
    with serving(good, hanging) as endpoint:
        arguments = command(endpoint, tmp_path / "a.jsonl", "--timeout", "3600", count=12)
        run = subprocess.Popen(
            [sys.executable, "-m", "training", *arguments], stderr=subprocess.PIPE, text=True
        )
        assert endpoint.asked(5)  # the fifth is sent once the first answer is kept
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=30)[1]
    assert run.returncode == 130
    assert said.splitlines()[-1].startswith("gvvad-train: interrupted; the same command goes on")
    assert KEY not in said
    assert len(list((tmp_path / "a.jsonl.answers").glob("*.json"))) == 1


def test_answers_before_a_failure_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    with serving(good, good, good, broken) as endpoint:
        said = refused(command(endpoint, out, "--concurrency", "1"), capsys)
        assert "answers so far are kept" in said
        assert not out.exists()
    with serving(good) as endpoint:
        assert main(command(endpoint, out)) == 0
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (nonsense, "schema 5; the last: "),
        (wrong_schema, "schema 5; the last: normal: Field required"),
        (lambda _: completion(None), "no JSON object came, but ''"),
        (
            lambda _: completion('{"anomalous": "A man. ", "normal": "A  man."}'),
            "both descriptions are the same",
        ),
    ],
)
def test_a_model_that_never_gives_a_pair_is_given_up(
    behaviour: Behaviour, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(behaviour) as endpoint:
        sentence = refused(command(endpoint, tmp_path / "a.jsonl", "--concurrency", "1"), capsys)
        assert len(endpoint.requests) == 5
    assert "pair 1 (" in sentence
    assert said in sentence


def spoiled(half: str, text: str) -> Behaviour:
    """Good, but for a sentence more in one half."""

    def behave(request: dict[str, Any]) -> Any:
        reply = json.loads(good(request).body or "")
        pair = json.loads(reply["choices"][0]["message"]["content"])
        pair[half] += f" {text}"
        return completion(f"Here it is:\n```json\n{json.dumps(pair)}\n```")

    return behave


def test_every_gate_counts_what_it_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = (
        nonsense,
        spoiled("anomalous", "Blood everywhere."),
        spoiled("normal", "word " * 300),
        spoiled("normal", "Nobody is fighting."),
    )
    with serving(*bad, good) as endpoint:
        arguments = command(endpoint, tmp_path / "a.jsonl", "--concurrency", "1", "--json")
        assert main(arguments) == 0
        assert len(endpoint.requests) == 4 + 4
    found = json.loads(capsys.readouterr().out)
    assert found["rejected"] == {
        "schema": 1,
        "banned content": 1,
        "length": 1,
        "normal names an anomaly": 1,
        "near-duplicate": 0,
    }
    assert found["asked"] == {"answers": 8, "input_tokens": 1600, "output_tokens": 800}
    assert "| banned content | 1 |" in Path(found["report"]).read_text()


def test_a_model_that_repeats_itself_is_stopped_by_near_duplicates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {name: f"A camera shows a wide {name} street with one man in it." for name in "ab"}
    always = completion(json.dumps({"anomalous": texts["a"], "normal": texts["b"]}))
    with serving(lambda _: always) as endpoint:
        said = refused(command(endpoint, tmp_path / "a.jsonl"), capsys)
    assert "pair 2 (" in said
    assert "near-duplicate 5; the last: similarity 1.00 to another" in said


def test_a_refusal_is_kept_too_so_that_a_rerun_gives_the_same(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with serving(lambda _: completion(None), good) as endpoint:
        assert main(command(endpoint, out, "--concurrency", "1")) == 0
        asked, rows = len(endpoint.requests), out.read_text()
        assert main(command(endpoint, out)) == 0
        assert len(endpoint.requests) == asked == 5
    assert out.read_text() == rows


def test_an_endpoint_without_schemas_is_asked_for_plain_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    with serving(plain_json_only) as endpoint:
        assert main(command(endpoint, out, "--concurrency", "1")) == 0
        kinds = [request["response_format"]["type"] for request in endpoint.requests]
        assert kinds == ["json_schema"] + 4 * ["json_object"]
        assert "refused a JSON schema" in capsys.readouterr().err
        assert main(command(endpoint, out)) == 0
        assert len(endpoint.requests) == 5


@pytest.mark.parametrize("key", [f"{KEY}\u2019", f"{KEY}\n{KEY}"])
def test_a_key_that_fits_no_header_is_refused_unseen(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GVVAD_WRITER_API_KEY", key)
    with serving(good) as endpoint:
        assert "is not plain ASCII" in refused(command(endpoint, tmp_path / "a.jsonl"), capsys)
        monkeypatch.setenv("GVVAD_WRITER_API_KEY", f" {KEY}\n")
        assert main(command(endpoint, tmp_path / "a.jsonl")) == 0
        assert endpoint.requests[0]["authorization"] == f"Bearer {KEY}"


def test_a_wrong_address_is_told_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(good) as endpoint:
        port = endpoint.base_url.rpartition(":")[2]
    monkeypatch.setenv("GVVAD_WRITER_BASE_URL", f"http://me:hunter2@127.0.0.1:{port}?token=hunter3")
    arguments = ["describe", "--writer", "openai", "--count", "2", "--retries", "0"]
    said = refused([*arguments, "--out", str(tmp_path / "a.jsonl")], capsys)
    assert f"the endpoint http://127.0.0.1:{port} cannot be reached" in said
    assert "hunter" not in said


@pytest.mark.parametrize(
    ("unset", "arguments", "said"),
    [
        ("GVVAD_WRITER_MODEL", [], "needs a model: --model, or GVVAD_WRITER_MODEL"),
        ("GVVAD_WRITER_API_KEY", [], "needs a key in GVVAD_WRITER_API_KEY"),
        (None, ["--base-url", "localhost:8000"], "must be an http or https URL"),
        (None, ["--base-url", "http://[::1"], "must be an http or https URL"),
        (None, ["--timeout", "0"], "--timeout (0) must be 0.1 to 3600 seconds"),
        (None, ["--retries", "-1"], "--retries (-1) must be 0 to 20"),
        (None, ["--concurrency", "0"], "--concurrency (0) must be 1 to 64"),
        (None, ["--prices", "-1", "2"], "--prices must be 0 or more"),
    ],
)
def test_an_endpoint_that_is_not_well_named_is_refused(
    unset: str | None,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if unset is not None:
        monkeypatch.delenv(unset)
    given = ["describe", "--writer", "openai", "--count", "2", "--out", str(tmp_path / "a.jsonl")]
    assert said in refused([*given, *arguments], capsys)
