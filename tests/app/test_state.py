"""Choices and the link: what an address says, what it does not, and what it must not be able to do."""

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app import state


def page() -> None:
    """A page with every kind of choice, as `app.main` runs one."""
    import streamlit as st

    from app import state

    colours = ("red", "green", "blue")
    state.begin()
    state.translator()
    st.radio("lang", ("en", "ja"), key=state.LANG)
    state.choose("colour", colours, "red")
    if not st.checkbox("hide", key="hide"):
        st.selectbox("colour", colours, key="colour")
    state.choose_many("many", colours, ["red", "blue"], most=2)
    st.multiselect("many", colours, key="many", max_selections=2)
    state.choose_number("count", 1, 10, 3)
    st.slider("count", 1, 10, key="count")
    state.choose_number("share", 0.0, 1.0, 0.5)
    st.number_input("share", 0.0, 1.0, key="share")
    state.choose_flag("down")
    st.toggle("down", key="down")
    state.choose_text("find")
    st.text_input("find", key="find")
    for key, value in state.notes():
        st.text(f"{key}={value}")
    state.publish_link()
    if st.session_state.pop("arrived", False):
        state.run_again()


def opened(**link: Any) -> AppTest:
    test = AppTest.from_function(page, default_timeout=20)
    test.context["locale"] = "en-US"
    test.query_params.update(link)
    return test.run()


def values(test: AppTest) -> dict[str, Any]:
    assert not test.exception, test.exception
    keys = ("colour", "many", "count", "share", "down", "find")
    return {key: test.session_state[key] for key in keys}


def noted(test: AppTest) -> list[str]:
    return [element.value for element in test.text]


PLAIN = {"colour": "red", "many": ["red", "blue"], "count": 3, "share": 0.5, "down": False, "find": ""}


def test_without_a_link_everything_is_plain_and_the_address_stays_empty() -> None:
    test = opened()
    assert values(test) == PLAIN and test.query_params == {} and noted(test) == []


def test_what_is_chosen_stands_in_the_address_and_an_opened_link_brings_it_back() -> None:
    test = opened()
    test.selectbox[0].select("green")
    test.multiselect[0].set_value(["blue", "green"])
    test.slider[0].set_value(7)
    test.number_input[0].set_value(0.25)
    test.toggle[0].set_value(True)
    test.text_input[0].set_value(" two  words, 糸=%&#+ ").run()
    link = {"colour": "green", "many": "blue,green", "count": "7", "share": "0.25", "down": "1",
            "find": "two words, 糸=%&#+"}  # fmt: skip
    assert test.query_params == link
    chosen = {"colour": "green", "many": ["blue", "green"], "count": 7, "share": 0.25, "down": True,
              "find": "two words, 糸=%&#+"}  # fmt: skip
    assert values(test) == chosen
    other = opened(**link)
    assert values(other) == chosen and other.query_params == link and noted(other) == []


def test_a_choice_put_back_by_hand_leaves_the_address() -> None:
    test = opened(colour="blue", count="7")
    test.selectbox[0].select("red").run()
    assert values(test) == PLAIN | {"count": 7} and test.query_params == {"count": "7"}


def test_nothing_chosen_is_a_choice_too() -> None:
    test = opened()
    test.multiselect[0].set_value([]).run()
    assert test.query_params == {"many": ""}
    assert values(opened(many=""))["many"] == [] and noted(opened(many="")) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("colour", "purple"), ("colour", ""), ("colour", "<script>alert(1)</script>"), ("many", "x,y"),
        ("count", "0"), ("count", "11"), ("count", "3.5"), ("count", "nan"), ("count", ""), ("count", "9" * 5000),
        ("share", "nan"), ("share", "inf"), ("share", "-1e999"), ("share", "half"), ("down", "true"), ("down", "2"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_put_back_and_said(key: str, value: str) -> None:
    test = opened(**{key: value})
    assert values(test) == PLAIN and test.query_params == {}
    shown = value if len(value) <= state.NOTED else value[: state.NOTED - 1] + "…"
    assert noted(test) == [f"{key}={shown}"]
    assert noted(test.run()) == []  # once


def test_what_was_said_stays_when_the_page_runs_again_by_itself() -> None:
    test = AppTest.from_function(page, default_timeout=20)
    test.query_params["colour"] = "black"
    test.session_state["arrived"] = True
    assert [text.value for text in test.run().text] == ["colour=black"]  # of the second run
    assert not test.run().text


def test_some_of_many_that_cannot_be_had_are_left_out_and_said() -> None:
    test = opened(many="green,purple,green,blue,red")
    assert values(test)["many"] == ["green", "blue"] and noted(test) == ["many=purple,red"]


def test_a_long_text_is_cut_and_one_on_several_lines_made_one() -> None:
    assert values(opened(find="x" * 5000))["find"] == "x" * 200
    assert values(opened(find="a\r\n\x00b\tc"))["find"] == "a \x00b c"


def test_a_note_shows_no_character_that_turns_text_around() -> None:
    assert noted(opened(colour="a\u202eb")) == ["colour=a%E2%80%AEb"]


def test_an_address_cannot_set_what_is_no_choice() -> None:
    test = opened(_kept="x", _who="admin", hide="1", _published="x", look="v1", other="y")
    assert values(test) == PLAIN and test.query_params == {"look": "v1"}
    assert not test.checkbox[0].value and "_who" not in test.session_state


def test_a_choice_survives_while_its_widget_is_not_drawn() -> None:
    test = opened()
    test.selectbox[0].select("green").run()
    test.checkbox[0].check().run()
    test.run()
    test.checkbox[0].uncheck().run()
    assert test.selectbox[0].value == "green"


def test_a_link_opened_in_a_session_puts_the_rest_back() -> None:
    test = opened(colour="blue", count="7")
    test.query_params.clear()
    test.query_params["colour"] = "green"
    assert values(test.run()) == PLAIN | {"colour": "green"}


def test_an_address_without_choices_keeps_the_session_as_the_menu_does() -> None:
    test = opened(colour="blue")
    test.query_params.clear()
    assert values(test.run()) == PLAIN | {"colour": "blue"} and test.query_params == {"colour": "blue"}


def test_a_click_that_was_made_before_the_new_address_arrived_does_not_undo_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test = opened(colour="blue")
    test.selectbox[0].select("green").run()
    test.query_params["colour"] = "blue"  # the browser has not heard of green yet
    test.slider[0].set_value(7)
    assert values(test.run()) == PLAIN | {"colour": "green", "count": 7}
    assert test.query_params == {"colour": "green", "count": "7"}
    monkeypatch.setattr(state, "UNDERWAY_S", 0.0)
    test.query_params.clear()
    test.query_params["colour"] = "blue"  # much later it is a link
    assert values(test.run()) == PLAIN | {"colour": "blue"}


def test_the_back_button_wins_over_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened()
    test.selectbox[0].select("green").run()
    test.selectbox[0].select("blue").run()
    monkeypatch.setattr(state, "went_through_history", lambda: True)
    test.query_params["colour"] = "green"
    assert values(test.run()) == PLAIN | {"colour": "green"}
    test.query_params.clear()
    assert values(test.run()) == PLAIN and test.query_params == {}


def test_a_language_is_kept_by_links_without_one_and_left_out_where_it_is_the_browsers() -> None:
    test = opened(lang="ja")
    test.query_params.clear()
    test.query_params["colour"] = "green"
    test.run()
    assert test.session_state[state.LANG] == "ja" and test.query_params == {"colour": "green", "lang": "ja"}
    test.radio[0].set_value("en").run()
    assert test.query_params == {"colour": "green"}
    assert opened(lang="de").session_state[state.LANG] == "en" and noted(opened(lang="de")) == ["lang=de"]


def linking() -> None:
    import streamlit as st

    from app import state

    state.begin()
    state.translator()
    st.text(state.link("inspect", sample="a/b &c=糸.png", models=["vpt", "ft"], down=True, share=0.5))
    st.text(state.link("help"))
    state.publish_link()


def test_links_to_other_pages_are_quoted_and_carry_the_language_where_it_is_not_the_browsers() -> None:
    test = AppTest.from_function(linking, default_timeout=20)
    test.context["locale"] = "fr-FR"
    wanted = "inspect?sample=a%2Fb+%26c%3D%E7%B3%B8.png&models=vpt%2Cft&down=1&share=0.5"
    assert noted(test.run()) == [wanted, "help"]
    test.query_params["lang"] = "ja"
    assert noted(test.run()) == [f"{wanted}&lang=ja", "help?lang=ja"]
