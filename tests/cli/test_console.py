"""Progress in a log: few lines, with a rate and the time left."""

import pytest

from explain import console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the next look at the clock gives."""
    now = [0.0]
    monkeypatch.setattr(console, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_a_minute_and_one_at_the_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bars() as progress:
        for second in range(0, 201):
            clock[0] = float(second)
            progress("explaining", second, 200)
        progress("explaining", 200, 200)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["explaining: 60 of 200, 1/s, 2 min left", "explaining: 120 of 200, 1/s, 1 min left",
                     "explaining: 180 of 200, 1/s, 0 min left", "explaining: 200 done in 200 s"]  # fmt: skip


def test_where_the_total_is_not_known_only_the_rate_is_told(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress_bars() as progress:
        for second in (1, 31, 62):
            clock[0] = float(second)
            progress("listing images", 10 * second, 0)
    assert capsys.readouterr().out.splitlines() == ["listing images: 620, 10/s"]
