"""Running the command line as a user does."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.integration.suite import ROOT, Suite

SECONDS = 90.0


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def medley(suite: Suite, *arguments: object) -> Answer:
    """Run a command against `suite` and wait for it."""
    ended = subprocess.run(
        command_line(*arguments), cwd=ROOT, env=environment(suite), capture_output=True, timeout=SECONDS, check=False
    )
    return Answer(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "medley", *map(str, arguments)]


def environment(suite: Suite) -> dict[str, str]:
    return {**os.environ, "MEDLEY_SERVER": suite.addresses["gateway"]}
