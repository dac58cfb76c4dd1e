"""gvvad-train selftest: run the known answers and print them as a table."""

from __future__ import annotations

import argparse
import json

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from training.clips import TrainingError
from training.selftest import CHECKS, Check

_CHECKS_EXPECTED = 15


def add_selftest(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "selftest",
        help="find known answers on synthetic problems, under a minute",
        description="Fit heads to problems whose answer is known and compare: detection against "
        "its ceiling, SSLS, meta lambda, PAL, causality, streaming.",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the problems (default 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run_selftest(options: argparse.Namespace) -> None:
    """Print every check as it is done.

    Raises:
        TrainingError: an answer is out of its bounds.
    """
    if options.seed < 0:
        raise TrainingError(f"--seed ({options.seed}) must be 0 or more")
    torch.set_num_threads(1)  # heads this small mostly wait for each other on more
    checks: list[Check] = []
    with tqdm(total=_CHECKS_EXPECTED, desc="selftest", unit="check", disable=None) as bar:
        for check in CHECKS:
            for found in check(options.seed):
                checks.append(found)
                bar.update()
                if not options.json:
                    bar.write(_line(found))
    failed = [check.name.strip() for check in checks if not check.passed]
    if options.json:
        rows = [check.to_json() for check in checks]
        print(json.dumps({"seed": options.seed, "passed": not failed, "checks": rows}, indent=1))
    if failed:
        raise TrainingError(f"{len(failed)} of {len(checks)} answers are wrong: {failed[0]}")


def _line(check: Check) -> str:
    bounds = f"{check.lowest:g} to {check.highest:g}"
    mark = "ok" if check.passed else "WRONG"
    return f"{check.name:58} {check.found:9.3g}  {bounds:>16}  {mark}"
