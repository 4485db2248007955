"""The npm packages that check pages: axe-core for accessibility, html-validate for the HTML."""

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent
AXE = HERE / "node_modules" / "axe-core" / "axe.min.js"
VALIDATOR = HERE / "validate.mjs"

needs_axe = pytest.mark.skipif(
    not AXE.exists(), reason=f"axe-core is not installed: npm ci in tests/inspector/{HERE.name}"
)
needs_validator = pytest.mark.skipif(
    shutil.which("node") is None or not (HERE / "node_modules" / "html-validate").exists(),
    reason=f"html-validate is not installed: install Node.js, then npm ci in tests/inspector/{HERE.name}",
)
