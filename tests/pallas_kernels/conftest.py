"""A race that Mosaic's interpreter sees fails the test; by itself it only prints it."""

import pytest


@pytest.fixture(autouse=True)
def no_races(capsys):
    yield
    assert "RACE DETECTED" not in capsys.readouterr().out
