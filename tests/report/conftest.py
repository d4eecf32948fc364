"""Fixtures: a finished pair of seeded random numbers."""

import pytest
from fake_pair import make_fake_pair

from explain.report.panels import Panels
from explain.training.pair import MatchedPair


@pytest.fixture(scope="session")
def fake_pair(tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    """A finished pair with panels; do not change its folder."""
    return make_fake_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def fake_panels(fake_pair: MatchedPair) -> Panels:
    """The panels of `fake_pair`."""
    return Panels.load(fake_pair.path)
