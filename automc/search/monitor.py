"""Whether a search's reward tells the truth: now and then a trial is fine-tuned, and the ranks are compared."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from automc.compression.finetune import finetune
from automc.environment.evaluator import Evaluator
from automc.environment.problem import Problem
from automc.errors import EvaluationFailed, WeightsError
from automc.schema import MonitorSpec
from automc.search.log import Header, RecordLog
from automc.search.study import Progress
from automc.search.trials import Trial

Report = Callable[[Progress], None]
_LOGGER = logging.getLogger(__name__)

LOG_NAME = "monitor.log"
_ENOUGH = 6  # checks before their order says anything: by chance a correlation below -0.2 is rare enough then
_MISLEADING, _WEAK = -0.2, 0.3  # Kendall's tau
_RECENT, _FEW = 24, 6  # of so many last trials at least so many policies should differ
_TIES = 5  # so many different policies of the same best reward, and the images cannot tell more


@dataclass(frozen=True)
class Check:
    """A trial's reward in the search, and what its network was truly worth: None where fine-tuning came to no end."""

    trial: int
    reward: float
    truth: float | None


class Monitor:
    """Listens to a study between it and `report`, and adds what it finds as the `remark` of a trial; a context manager.

    Every `spec.every`-th trial that did not fail is fine-tuned for `spec.epochs` by the environment's recipe and judged
    on the selection split. Where the goal is quality within limits, its truth is that quality, whatever the reward
    says; where a reward weighs costs against quality, it is the reward of the tuned network. Neither the search nor its
    log sees anything of it. Checks are kept in `folder`; the same study goes on with them, however often it now checks.

    Raises as `RecordLog`.
    """

    def __init__(self, problem: Problem, spec: MonitorSpec, folder: Path, header: Header, report: Report) -> None:
        self._evaluator = Evaluator(problem, "sequential")
        self._spec, self._folder, self._report = spec, folder, report
        self._recipe = problem.spec.finetuning.model_copy(update={"epochs": spec.epochs})
        identity = {"study": header, "recipe": self._recipe.model_dump()}
        self._log = RecordLog(folder / LOG_NAME, identity, _LOGGER.warning)
        self._known = {record["trial"]: record["truth"] for record in self._log.records}
        self._trials: list[Trial] = []
        self._checks: list[Check] = []
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        self._log.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.__exit__(kind, error, trace)

    def __call__(self, progress: Progress) -> None:
        """Pass `progress` on, with a remark where this trial was checked or something looks wrong."""
        trial = progress.trial
        self._trials.append(trial)
        remarks = []
        if trial.complete and (trial.number + 1) % self._spec.every == 0:
            self._checks.append(Check(trial.number, trial.reward, self._truth(trial)))
            remarks.append(summary(self._checks))
        new = {kind: text for kind, text in warnings(self._trials, self._checks).items() if kind not in self._warned}
        self._warned |= new.keys()
        self._report(replace(progress, remark="\n".join([*remarks, *new.values()])))

    def _truth(self, trial: Trial) -> float | None:
        if trial.number not in self._known:
            truth, reason = self._tuned(trial)
            self._log.write({"trial": trial.number, "reward": trial.reward, "truth": truth, "reason": reason})
            self._known[trial.number] = truth
        found: float | None = self._known[trial.number]
        return found

    def _tuned(self, trial: Trial) -> tuple[float | None, str]:
        problem, place = self._evaluator.problem, self._folder / f"{trial.number}"
        network, images = problem.network, problem.splits.train
        try:
            program = self._evaluator.program(trial.policy)
            tuned = finetune(
                program, images, problem.module, network.mean, network.std, self._recipe, place, lambda line: None
            )
            metrics = self._evaluator.judge(tuned, trial.policy, "selection")
        except (WeightsError, EvaluationFailed) as failure:
            return None, str(failure)
        shutil.rmtree(place, ignore_errors=True)  # the state of a training that is over
        return (metrics.quality if problem.spec.goal.reward == "amc" else problem.reward(metrics)), ""


def correlation(checks: Sequence[Check]) -> float | None:
    """Kendall's rank correlation (tau-b) of reward and truth; None where there are too few checks, or all are equal."""
    from scipy.stats import kendalltau

    pairs = [(check.reward, check.truth) for check in checks if check.truth is not None]
    if len(pairs) < _ENOUGH:
        return None
    tau = float(kendalltau(*zip(*pairs, strict=True)).statistic)
    return None if tau != tau else tau


def summary(checks: Sequence[Check]) -> str:
    """What the checks have shown so far, as a line."""
    last, tau = checks[-1], correlation(checks)
    found = "fine-tuning failed" if last.truth is None else f"reward {last.reward:.4f}, fine-tuned {last.truth:.4f}"
    ranks = "no rank correlation yet" if tau is None else f"rank correlation {tau:.2f}"
    return f"monitor: trial {last.trial}: {found}; {len(checks)} checked, {ranks}"


def warnings(trials: Sequence[Trial], checks: Sequence[Check]) -> dict[str, str]:
    """What looks wrong with a search, by kind, each with what to do about it."""
    found = {}
    tau = correlation(checks)
    if tau is not None and tau <= _MISLEADING:
        found["hacking"] = (
            f"warning: the higher the reward, the worse the fine-tuned network (rank correlation {tau:.2f} in "
            f"{len(checks)} checks): the search exploits a fault of the reward or of the metric. Stop, and "
            "look at both."
        )
    elif tau is not None and tau < _WEAK:
        found["weak"] = (
            f"warning: the reward hardly orders networks as fine-tuning does (rank correlation {tau:.2f} in "
            f"{len(checks)} checks). Use fidelity: sequential, more images in data.search, or metric: logit_error."
        )
    recent = [trial.policy.fingerprint for trial in trials[-_RECENT:]]
    if len(recent) == _RECENT and len(set(recent)) < _FEW:
        found["collapse"] = (
            f"warning: the last {_RECENT} trials are only {len(set(recent))} different policies: the searcher has "
            "collapsed. Give an agent more entropy, or stop here: more trials will find nothing."
        )
    complete = [trial for trial in trials if trial.complete]
    best = max((trial.reward for trial in complete), default=0.0)
    ties = {trial.policy.fingerprint for trial in complete if trial.reward == best}
    if len(ties) >= _TIES:
        found["saturation"] = (
            f"warning: {len(ties)} different policies share the best reward {best:.4f}: the search images cannot tell "
            "them apart. Use more of them (data.search), a tighter limit, or metric: logit_error."
        )
    return found
