"""Invented runs on disk, written by the project's own log and result, for tests of what reads them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from automc.compression.policy import Policy
from automc.environment.measures import share
from automc.environment.quality import find_metric
from automc.search.result import LayerRow, Result, Row, Selection, SplitSizes, Timing, Verification, write_result
from automc.search.trials import Trial, TrialLog

LAYERS = ("conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.conv2", "fc")
DENSE_MS = 0.412
_SKILL = {"ppo": 0.05, "greedy": 0.035, "tpe": 0.015, "random": 0.0, "uniform": -0.02}


def make_study(folder: Path, searcher: str, seed: int, trials: int = 40, failures: tuple[int, ...] = ()) -> None:
    """A study's log whose trials grow better; those in `failures` have failed."""
    rng = np.random.default_rng([seed, len(searcher)])
    header = {"searcher": searcher, "seed": seed}
    with TrialLog(folder / f"{searcher}-{seed}", header, logging.getLogger(__name__).warning) as log:
        for number in range(trials):
            policy = Policy(keep_ratio={"conv1": round(float(rng.uniform(0.1, 1)), 3)})
            if number in failures:
                log.append(Trial(number, policy, {}, -1.0, "failed", "latency_ms is nan"))
                continue
            share = float(rng.uniform(0.15, 0.5))
            loss = 0.1 * (0.5 / share - 1) * rng.uniform(0.1, 1) - _SKILL.get(searcher, 0.0) * (number / trials - 0.5)
            accuracy = round(float(np.clip(0.9 - loss - (0.4 if rng.uniform() < 0.05 else 0), 0.1, 0.915)), 3)
            log.append(Trial(number, policy, _metrics(accuracy, share), accuracy))


def _metrics(accuracy: float, share: float) -> dict[str, object]:
    return {
        "accuracy": accuracy,
        "accuracy_loss": 0.92 - accuracy,
        "logit_error": 1 - accuracy,
        "latency_ms": share * DENSE_MS,
        "energy_mj": share * 1.7,
        "size_bytes": int(share * 270_000),
        "peak_memory_bytes": 65_536,
        "macs": int(share * 40_550_000),
        "notes": [],
    }


def _rows() -> tuple[Row, ...]:
    def row(kind: str, label: str, correct: int, search: float, ratio: float, measured: float | None) -> Row:
        found = share(np.arange(10_000) < correct)
        timing = None if measured is None else Timing(
            median_ms=measured, lower_ms=measured * 0.99, upper_ms=measured * 1.03, repeats=200
        )  # fmt: skip
        dense = kind == "dense_float32"
        return Row(
            kind=kind, label=label, quality=found.value, lower=found.lower, upper=found.upper, interval=found.method,
            images=10_000, search_quality=search,
            latency_ms=None if dense else ratio * DENSE_MS, measured=timing, energy_mj=None if dense else ratio * 1.7,
            size_bytes=1_078_000 if dense else int(ratio * 270_000), peak_memory_bytes=None if dense else 65_536,
            macs=int(40_550_000 * ratio),
        )  # fmt: skip

    return (
        row("dense_float32", "dense float32", 9173, 0.920, 1, None),
        row("dense_int8", "dense int8", 9171, 0.918, 1, 0.42),
        row("uniform", "uniform at the same budget", 8704, 0.874, 0.5, 0.215),
        row("searched", "searched", 8990, 0.905, 0.49, 0.211),
        row("finetuned", "searched, fine-tuned", 9132, 0.917, 0.49, 0.211),
    )


def make_result(**changes: object) -> Result:
    """A result with every part present, with `changes` laid over it."""
    rng = np.random.default_rng(7)
    layers = tuple(
        LayerRow(
            name=name, kind="dense" if name == "fc" else "convolution", channels=16 * 2 ** (index // 3),
            kept_channels=int(rng.integers(5, 16)) * 2 ** (index // 3), weight_bits=int(rng.integers(2, 9)),
            activation_bits=None if name == "fc" else int(rng.integers(3, 9)), macs=1_000_000 * (index + 1),
            size_bytes=2_000 * (index + 1), latency_ms=0.03 * rng.uniform(0.3, 1), dense_latency_ms=0.03,
            kernel="maddubs, 4 steps",
        )
        for index, name in enumerate(LAYERS)
    )  # fmt: skip
    everything = {
        "environment": "resnet20_cifar10", "description": "ResNet-20 on CIFAR-10", "network": "resnet20",
        "dataset": "cifar10", "metric": find_metric("accuracy").reading,
        "goal": "the most accurate network within 0.206 ms (50 % of dense int8)",
        "limits": {"latency_ms": DENSE_MS / 2}, "device": "host", "target": "avx2", "compiler": "zig 0.17.1",
        "latency_source": "table of this host, measured kernel by kernel", "energy_source": "published coefficients",
        "interpolated": ("layer2.0.conv1",),
        "splits": SplitSizes(train=48_000, search=1000, selection=1000, test=10_000, carved_from="train"),
        "selection": Selection(
            searcher="ppo", seed=0, trial=31, candidates=12, search_quality=0.905, selection_quality=0.897,
            expected_quality=0.894,
        ),
        "finetuning_epochs": 1.0, "policy": Policy(keep_ratio={"conv1": 0.5}), "rows": _rows(), "layers": layers,
        "verification": Verification(images=10_000, logits=100_000, different_logits=0), "artifact": "library",
        "prefix": "automc_0123abcd",
        "versions": {"automc": "0.1.0", "torch": "2.13.0"}, "hashes": {"environment": "ab" * 32, "weights": "cd" * 32},
        "notes": ("fc is kept at 8 bits: the search space pins @last",),
    }  # fmt: skip
    return Result.model_validate(everything | changes)


def make_run(folder: Path, searchers: tuple[str, ...] = ("ppo",), seeds: int = 1, **changes: object) -> Path:
    """A finished run of one environment; `changes` are laid over its result."""
    for searcher in searchers:
        for seed in range(seeds):
            make_study(folder / "resnet20_cifar10", searcher, seed, failures=(3,) if searcher == "random" else ())
    write_result(make_result(**changes), folder / "resnet20_cifar10" / "winner" / "result.json")
    return folder
