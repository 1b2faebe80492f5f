"""Shapes and types are checked in the tests only: jaxtyping's import hook, with beartype, on the whole package."""

import pytest
import torch
from hypothesis import settings
from jaxtyping import config, install_import_hook

# The numeric tower: an int is a float, as everywhere else in Python.
install_import_hook("slowmanifold", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
torch.set_num_threads(1)

settings.register_profile("laws", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("laws")


@pytest.fixture
def unchecked():
    """Type checks off, so that bad input reaches the package's own errors as it does for a user."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
