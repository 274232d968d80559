"""Every error that the agent or the user can meet. Each message says what happened, to what, and the next step."""


class AutoresearchError(Exception):
    """Root of the tree; its text is shown as it is, never with a traceback."""


class TaskError(AutoresearchError):
    """autoresearch.toml is missing, is not valid, or names files that are not there."""


class WorkspaceError(AutoresearchError):
    """The folder, its git repository or its state is not what the loop needs."""


class PatchError(AutoresearchError):
    """A patch was not applied; the editable file is untouched."""


class NotAllowedError(AutoresearchError):
    """The step is not allowed now; the text says which steps are."""


class NotFoundError(AutoresearchError):
    """An experiment, a line range or a reference that does not exist was named."""


class LedgerError(AutoresearchError):
    """The ledger cannot be read or does not verify."""


class EvaluationError(AutoresearchError):
    """The scoring command did not give a score."""


class RefusedError(AutoresearchError):
    """The evaluator will not score what was submitted; `failure` is the name it is recorded under."""

    def __init__(self, message: str, failure: str = "refused"):
        super().__init__(message)
        self.failure = failure


class RunFailedError(AutoresearchError):
    """A run gave no score; outcome and failure are the names it is recorded under."""

    def __init__(self, outcome: str, failure: str, reason: str = ""):
        super().__init__(reason or failure)
        self.outcome, self.failure, self.reason = outcome, failure, reason
