"""The trial log: the only state of a search, one record a finished evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from automc.compression.policy import Policy
from automc.errors import CorruptFile
from automc.search.log import Header, Record, RecordLog, read_records

if TYPE_CHECKING:
    import pandas

LOG_NAME = "trials.log"


@dataclass(frozen=True)
class Trial:
    """One evaluated policy.

    `metrics` are numbers by name (empty when the evaluation failed, with the `reason`). `reward` is what the searcher
    was told: of a failed trial, the worst reward before it.
    """

    number: int
    policy: Policy
    metrics: Mapping[str, Any]
    reward: float
    state: Literal["complete", "failed"] = "complete"
    reason: str = ""

    @property
    def complete(self) -> bool:
        return self.state == "complete"

    def to_record(self) -> dict[str, Any]:
        """The trial as plain data, with its policy's fingerprint."""
        return {
            "number": self.number,
            "policy": self.policy.model_dump(mode="json"),
            "fingerprint": self.policy.fingerprint,
            "metrics": dict(self.metrics),
            "reward": self.reward,
            "state": self.state,
            "reason": self.reason,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Trial:
        """The trial of a record that `to_record` made. Raises `ValueError` or `KeyError` for anything else."""
        trial = cls(
            record["number"],
            Policy.model_validate(record["policy"]),
            record["metrics"],
            record["reward"],
            record["state"],
            record["reason"],
        )
        if trial.policy.fingerprint != record["fingerprint"]:
            raise ValueError("the policy's fingerprint is not that of the policy")
        return trial


class TrialLog(RecordLog):
    """A study's log, opened by the one process that works on it. Raises as `RecordLog`."""

    def __init__(self, folder: Path, header: Header, note: Callable[[str], None]) -> None:
        self.trials: list[Trial] = []
        super().__init__(folder / LOG_NAME, header, note)

    def _check(self) -> None:
        self.trials = _trials_of(self.records, self.path)

    def append(self, trial: Trial) -> None:
        """Write one trial so that it survives a crash; where that fails, the log is as it was before."""
        self.write(trial.to_record())
        self.trials.append(trial)


def begun_logs(folder: Path, pattern: str) -> list[Path]:
    """The logs of the studies whose folders match `pattern`, without those that a process was killed before writing."""
    logs = []
    for path in sorted(folder.glob(f"{pattern}/{LOG_NAME}")):
        with path.open("rb") as stream:
            if stream.readline().endswith(b"\n"):
                logs.append(path)
    return logs


def read_log(path: Path) -> tuple[Header, list[Trial]]:
    """The header and the trials of a study's folder or log, also while it is written. Raises as `read_records`."""
    path = path / LOG_NAME if path.is_dir() else path
    header, records = read_records(path)
    return header, _trials_of(records, path)


def read_trials(path: Path) -> pandas.DataFrame:
    """A study's trials, one row each: number, state, reward, every metric by its name, reason, policy, fingerprint.

    `path` is the study's folder or its log; `attrs["header"]` is what identifies the study. Raises as `read_log`.
    """
    import pandas

    header, trials = read_log(path)
    rows = []
    for trial in trials:
        row = {"number": trial.number, "state": trial.state, "reward": trial.reward, **trial.metrics}
        rows.append(row | {"reason": trial.reason, "policy": trial.policy, "fingerprint": trial.policy.fingerprint})
    frame = pandas.DataFrame(rows)
    frame.attrs["header"] = dict(header)
    return frame


def _trials_of(records: list[Record], path: Path) -> list[Trial]:
    trials = []
    for number, record in enumerate(records):
        try:
            trial = Trial.from_record(record)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFile(f"{path}:{number + 2}: not a trial: {error}") from error
        if trial.number != number:
            raise CorruptFile(f"{path}:{number + 2}: trial {trial.number} stands where trial {number} belongs")
        trials.append(trial)
    return trials
