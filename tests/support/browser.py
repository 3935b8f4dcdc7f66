"""Chromium as the system has it, and what goes wrong in a page that it shows."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 20_000
"""How long the page may take for what should show: of a node of a fleet it hears after a heartbeat."""
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: apt install chromium)")


@asynccontextmanager
async def started() -> AsyncIterator[Browser]:
    """The browser without a window; what is expected of its pages may take a while."""
    expect.set_options(timeout=PATIENCE_MS)
    # Its sandbox cannot be made by root, nor in most containers.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


class Watched:
    """A page with all that it complains of: errors, violations of its policy, requests to other hosts, dialogs."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("request", lambda request: self._asked(request.url, origin))

    def _heard(self, kind: str, text: str) -> None:
        # The browser itself reports answers of 4xx and 5xx, and connections refused, as errors.
        if kind in ("error", "warning") and "Failed to load resource" not in text:
            self.complaints.append(f"{kind}: {text}")

    def _asked(self, url: str, origin: str) -> None:
        if not url.startswith(origin):
            self.complaints.append(f"request: {url}")


@asynccontextmanager
async def opened(browser: Browser, address: str, **context: Any) -> AsyncIterator[Page]:
    """The daemon's page; at the end it must have had nothing to complain of."""
    made = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context)
    try:
        watched = Watched(await made.new_page(), f"http://{address}/")
        watched.page.set_default_timeout(PATIENCE_MS)
        await watched.page.goto(f"http://{address}/")
        yield watched.page
        assert watched.complaints == []
    finally:
        await made.close()
