"""Errors nobody expected: the reader sees an id, the log has the details under it."""

import logging
import secrets
import sys
from functools import cache
from logging.handlers import RotatingFileHandler
from types import TracebackType

import streamlit as st

from app import server
from explain.errors import ExplainError
from explain.i18n import Translator

LOG_BYTES, LOG_FILES = 5 * 2**20, 3


class Guard:
    """`with guard(t):` shows an id for an error that is a bug, and lets everything else through.

    Through go errors that say what to do (`ExplainError`, for the caller to show) and what streamlit steers by
    (stop and rerun, which are no `Exception`).

    Args:
        t: texts in the reader's language.
    """

    def __init__(self, t: Translator) -> None:
        self._t = t

    def __enter__(self) -> "Guard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, ExplainError):
            return False
        show(self._t, record(error))
        return True


def guard(t: Translator) -> Guard:
    """Round a page; see `Guard`."""
    return Guard(t)


def record(error: Exception) -> str:
    """Write an error with its traceback to the log.

    Returns:
        The id it is found by.
    """
    number = secrets.token_hex(4)
    log().error("error %s: %s", number, type(error).__name__, exc_info=error)
    return number


def show(t: Translator, number: str) -> None:
    """Tell the reader that something went wrong, and under which id the log has it."""
    st.error(t("viewer.access.trouble", id=number), icon=":material/error:")


def log() -> logging.Logger:
    """The viewer's log: standard error, and the file named by `--log=` on the command line."""
    return _log(server.word_of(server.LOG_FLAG, sys.argv))


@cache
def _log(file: str | None) -> logging.Logger:
    logger = logging.getLogger("explain.viewer")
    logger.setLevel(logging.INFO)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if file is not None:
        handlers.append(RotatingFileHandler(file, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"))
        # what goes wrong in a callback or a fragment never reaches the guard: streamlit itself logs it
        logging.getLogger("streamlit.error_util").addHandler(handlers[-1])
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    return logger
