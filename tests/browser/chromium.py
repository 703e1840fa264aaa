"""A browser without a window: Debian's Chromium, told what to do by its driver. It asks nothing from any network: what
it would ask for is recorded."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver"}
"""Program → Debian's package."""

DESK, PHONE = 1280, 390
"""Widths of a viewport, in CSS pixels."""


def missing() -> str | None:
    """What the tests in a browser lack; None where nothing is."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian's package {package})"
    if importlib.util.find_spec("selenium") is None:
        return "the Python package selenium is not installed"
    return None


class Browser:
    """One window of a browser."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = DESK, scripts: bool = True, fragment: str = "", **media: str) -> None:
        """Show a file.

        Args:
            width: of the viewport, in CSS pixels; at most 500: a phone's.
            scripts: whether scripts of the page run.
            media: features, with `_` for `-`: `prefers_color_scheme="dark"`.
        """
        self.logs("browser")
        self.logs("performance")
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width <= 500}
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.tell("Emulation.setDeviceMetricsOverride", **metrics)
        self.tell("Emulation.setEmulatedMedia", media="", features=features)
        self.tell("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.driver.get("about:blank")
        self.driver.get(path.as_uri() + fragment)

    def tell(self, command: str, **arguments: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def logs(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since the last time."""
        return list(self.driver.get_log(kind))

    def complaints(self) -> list[str]:
        """Messages on the console, warnings and errors and all."""
        return [entry["message"] for entry in self.logs("browser")]

    def requests(self) -> list[str]:
        """Addresses that the page wanted, but for files; what is in the page already asks for nothing."""
        found = []
        for entry in self.logs("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [url for url in found if not url.startswith(("data:", "about:", "chrome:", "blob:"))]


@contextlib.contextmanager
def a_browser(downloads: Path) -> Iterator[Browser]:
    """A browser that is gone at the end. What it downloads lands in a folder."""
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                     "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND"):  # fmt: skip
        options.add_argument(argument)
    if os.geteuid() == 0:  # its sandbox is not for root
        options.add_argument("--no-sandbox")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(60)
        yield Browser(driver)
    finally:
        driver.quit()
