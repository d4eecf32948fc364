"""Who may come in: the gate that stands before anything of a run is opened.

How people sign in stands on the command line, see `app.server.Entrance`: by a password file, at an identity provider,
or not at all. Who is signed in is kept in the browser session, and looked up again at every run of the page, so that
somebody taken from the password file is out at the next one.
"""

import math
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAuthError

from app import server, trouble, widgets
from app.passwords import Account, Tries, matches, read_accounts, tidy_name
from explain.errors import InputError
from explain.i18n import Translator

_SIGNED_IN = "_signed_in"
_TRIES = Tries()
_QUIET = "<style>[data-testid=InputInstructions] { display: none; }</style>"
"""Streamlit writes "Press Enter to submit form" into the field, in English whatever the page's language."""


@dataclass(frozen=True)
class SignedIn:
    """Who came in by this session.

    Args:
        name: of the person.
        account: what the password file said of them then; None for an account of an identity provider.
    """

    name: str
    account: Account | None = None


def admit(t: Translator) -> str | None:
    """Let in who may come in; everybody else is asked to sign in, and nothing after this call is run.

    Returns:
        The name of the person who is signed in; None where nobody has to sign in.
    """
    file = server.word_of(server.AUTH_FLAG, sys.argv)
    if file is not None:
        return _admit_by_password(t, Path(file))
    if server.OIDC_FLAG in sys.argv[1:]:
        return _admit_by_provider(t)
    return None


def is_inside() -> bool:
    """Whether the last run of the page let this session in, or nobody has to sign in: where to show the menu."""
    closed = server.word_of(server.AUTH_FLAG, sys.argv) is not None or server.OIDC_FLAG in sys.argv[1:]
    return not closed or _signed_in() is not None


def show_account(t: Translator) -> None:
    """Who is signed in, and the way out; nothing where nobody has to sign in."""
    signed = _signed_in()
    if signed is None:
        return
    st.caption(t("viewer.access.signed_in", name=widgets.literal(signed.name)))
    if st.button(t("viewer.access.leave"), key="_sign_out", icon=":material/logout:"):
        _leave()


def _signed_in() -> SignedIn | None:
    found = st.session_state.get(_SIGNED_IN)
    return found if isinstance(found, SignedIn) else None


def _enter(signed: SignedIn) -> None:
    if _signed_in() != signed:
        trouble.log().info("signed in: %r from %s", signed.name, st.context.ip_address or "this machine")
        st.session_state[_SIGNED_IN] = signed


def _leave() -> None:
    """Forget everything of the session, then leave the identity provider or ask to sign in again."""
    signed = _signed_in()
    st.session_state.clear()
    if signed is not None and signed.account is None:
        st.logout()
        st.stop()
    st.rerun()


def _admit_by_password(t: Translator, file: Path) -> str:
    try:
        accounts = read_accounts(file)
    except InputError as error:  # its text is about files of the server, nothing for strangers
        st.error(t("viewer.access.broken", id=trouble.record(error)), icon=":material/error:")
        st.stop()
    signed = _signed_in()
    if signed is not None and accounts.get(signed.name) == signed.account:
        return signed.name
    if signed is not None:  # no longer in the file, or with another password
        st.session_state.clear()
    with _card(t), st.form("_sign_in", border=False):
        name = st.text_input(t("viewer.access.name"), autocomplete="username")
        password = st.text_input(t("viewer.access.password"), type="password", autocomplete="current-password")
        if st.form_submit_button(t("viewer.access.enter"), type="primary", width="stretch"):
            problem = _try(t, accounts, name, password)
            if problem is None:
                st.rerun()
            st.error(problem)
    st.stop()


def _try(t: Translator, accounts: dict[str, Account], typed: str, password: str) -> str | None:
    """Sign in, or say why not."""
    if not typed.strip() or not password:
        return t("viewer.access.empty")
    name = tidy_name(typed.strip()) or ""
    wait_s = _TRIES.begin(name)
    if wait_s > 0:
        return t("viewer.access.wait", seconds=math.ceil(wait_s))
    if not matches(accounts, name, password):
        # a name that is not in the file may well be a password typed into the wrong field
        who = repr(name) if name in accounts else "an unknown name"
        trouble.log().warning("sign-in refused: %s from %s", who, st.context.ip_address or "this machine")
        return t("viewer.access.wrong")
    _TRIES.forget(name)
    _enter(SignedIn(name, accounts[name]))
    return None


def _admit_by_provider(t: Translator) -> str:
    secrets: dict[str, Any] = st.secrets.to_dict() if st.secrets.load_if_toml_exists() else {}
    if not secrets.get("auth") or find_spec("authlib") is None:
        st.error(t("viewer.access.no_provider"), icon=":material/error:")
        st.stop()
    user = dict(st.user)
    if not user.get("is_logged_in"):
        with _card(t):
            if st.button(t("viewer.access.provider"), type="primary", width="stretch"):
                try:
                    st.login()
                except StreamlitAuthError as error:  # such as a client id that is missing
                    st.error(t("viewer.access.broken", id=trouble.record(error)), icon=":material/error:")
        st.stop()
    name = str(user.get("email") or user.get("name") or user.get("sub"))
    if not _invited(user, secrets.get("explain", {}).get("people")):
        trouble.log().warning("sign-in refused: %r is not among the people", name)
        with _card(t):
            st.error(t("viewer.access.refused", name=widgets.literal(name)), icon=":material/block:")
            if st.button(t("viewer.access.leave")):
                st.logout()
        st.stop()
    _enter(SignedIn(name))
    return name


def _invited(user: dict[str, Any], people: list[str] | None) -> bool:
    """Whether an account's e-mail address, or its part from "@" on, is in the list; no list: all are."""
    if people is None:
        return True
    address = str(user.get("email") or "").casefold()
    _, at, domain = address.rpartition("@")
    known = {str(each).casefold() for each in people}
    return bool(at) and user.get("email_verified") is not False and (address in known or at + domain in known)


def _card(t: Translator) -> Any:
    """A place in the middle of an otherwise empty page, for signing in."""
    st.html(_QUIET)
    middle = st.columns([1, 1.1, 1])[1].container(border=True)
    middle.markdown(f"#### {t('viewer.access.title')}")
    middle.caption(t("viewer.access.intro"))
    return middle
