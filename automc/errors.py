"""The errors that automc raises on purpose; the command line prints them as one block and exits with their code."""


class AutomcError(Exception):
    """Base of every error that automc raises on purpose."""

    exit_code = 1


class InputError(AutomcError):
    """Something that the user wrote or named is wrong; nothing has been computed yet."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration file or an override does not say what its schema asks for."""


class NameNotFound(InputError):
    """No file or registered object has this name."""


class DataError(InputError):
    """A data set is missing, incomplete, or not what its checksum says."""


class WeightsError(InputError):
    """A weights file does not fit the network, or holds values that are not finite."""


class TableError(InputError):
    """A latency table is malformed or belongs to another device."""


class PolicyError(InputError):
    """A policy does not fit the network or the search space."""


class UnsupportedLayer(InputError):
    """A layer has no integer form, so no Program can be made of the network."""


class CorruptFile(InputError):
    """A file that automc wrote fails its checksum."""


class RunMismatch(InputError):
    """A run's log was written under another configuration."""


class InfeasibleBudget(InputError):
    """No policy of the search space meets the budget."""


class StorageError(AutomcError):
    """Reading or writing a file failed."""

    exit_code = 3


class StudyLocked(AutomcError):
    """Another process is working on the same study."""

    exit_code = 4


class CompileError(AutomcError):
    """The tool chain is missing, failed, or ran past its limits."""

    exit_code = 5


class RunnerError(AutomcError):
    """A generated program crashed, ran past its limits, or printed something unexpected."""

    exit_code = 5


class InvalidProgram(AutomcError, ValueError):
    """An integer program breaks one of the rules that make it mean the same on every target."""


class VerificationError(AutomcError):
    """A library's outputs differ from the interpreter's."""

    exit_code = 6


class EvaluationFailed(AutomcError):
    """A policy could not be judged: a metric is not finite; its trial has failed, the study goes on."""


class InvalidAction(AutomcError):
    """An action is outside the action space or masked in the present state."""


class BudgetSpent(AutomcError):
    """The study has evaluated all the trials it may; raised inside a searcher to end it."""
