"""The specifications that are contracts here."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.responses import Specifications


@pytest.fixture(scope="session")
def open_responses_spec() -> dict[str, Any]:
    """The OpenResponses specification, where HERMES2_CONTRACTS_DIR has it."""
    folder = os.environ.get("HERMES2_CONTRACTS_DIR")
    if not folder:
        pytest.skip("HERMES2_CONTRACTS_DIR is not set: the specification is not part of this repository")
    spec: dict[str, Any] = json.loads(gzip.decompress((Path(folder) / "openresponses-openapi.json.gz").read_bytes()))
    return spec


@pytest.fixture(scope="session")
def specifications(openai_spec: dict[str, Any], open_responses_spec: dict[str, Any]) -> Specifications:
    return Specifications(openai_spec, open_responses_spec)
