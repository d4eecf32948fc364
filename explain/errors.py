"""Every error a user of the toolkit may meet.

One base class, so that a caller, the command line and the viewer each catch one name. Every message says
what was expected, what came, and what to do. Where a built-in says the same thing the class inherits it too.
"""


class ExplainError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line leaves with."""

    exit_code = 2


class InputError(ExplainError, ValueError):
    """An argument, image or target is not what a function takes."""


class UnknownNameError(ExplainError, LookupError):
    """A name that no registry, file or class list knows; the message lists the known ones."""


class TokenLayoutError(ExplainError, ValueError):
    """A token sequence does not have the length its layout says."""


class BackboneError(ExplainError):
    """A backbone that cannot be built, fetched or trusted."""


class DatasetError(ExplainError):
    """A data set that cannot be read at all (single bad images are rejected and listed instead)."""


class CaptureError(ExplainError, RuntimeError):
    """A model does not show what a method has to see, such as attention or a gradient."""


class Cancelled(ExplainError):
    """The caller asked to stop."""

    exit_code = 4


class NonFiniteError(ExplainError, ArithmeticError):
    """A loss, logit or map is NaN or infinite; the message names the step and the images."""

    exit_code = 4


class MismatchedRunsError(ExplainError, ValueError):
    """Two runs that are compared but were not trained alike; the message lists each differing field."""


class IntegrityError(ExplainError):
    """A file is not the one its manifest recorded."""

    exit_code = 5


class StorageError(ExplainError, OSError):
    """Something could not be written, such as on a full disk; what is finished is kept and the work can go on."""

    exit_code = 4
