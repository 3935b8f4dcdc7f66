"""What holds for all tests, and what most tests of the whole daemon begin with."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from support.daemon import KEY, Site
from tablefeed.lease import ignore_lease_breaks
from tablefeed.sandbox.server import RunningSandbox, SandboxSettings, running

ignore_lease_breaks()
settings.register_profile("tests", settings.default, deadline=None)  # it would measure how busy the machine is
settings.load_profile("tests")
os.environ["BOTO_DISABLE_CRT"] = "true"  # with awscrt beside it botocore orders a URL's parameters in another way


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[RunningSandbox]:
    """ProcessMind as it is, with every parameter demanded."""
    async with running(SandboxSettings(tmp_path / "processmind", KEY, strict=True)) as sandbox:
        yield sandbox


@pytest.fixture
def site(tmp_path: Path, sandbox: RunningSandbox) -> Site:
    """A configuration for it."""
    return Site(tmp_path, sandbox.base_url)
