"""An image without a container: a Dockerfile's steps, run below a folder that stands for the root of its files.

One kind of step is left out: the RUN that installs Debian's packages and creates the user, which needs root and would
change this machine.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.deploy.dockerfile import Instruction, stages
from tests.support.process import clean_environment

PLACES = re.compile(r"(?<![\w./-])/(?=(?:build|opt|srv|var/lib)\b)")
VARIABLE = re.compile(r"\$(\w+)")
CHANGES_THE_MACHINE = "apt-get "
BUILD_WITHIN = 300.0
AS_IT_IS = {"PIP_COMPILE": "0"}
"""Compiling the hundreds of installed modules takes longer than installing them; few of them are imported."""


class Image:
    """Build what a Dockerfile describes below `root`, and hold the last stage's environment, folder and commands."""

    def __init__(self, dockerfile: Path, context: Path, root: Path) -> None:
        self._context, self._root = context, root
        self.environment: dict[str, str] = {}
        self.workdir = root
        self.skipped: list[str] = []
        self.health: list[str] = []
        self.entrypoint: list[str] = []
        self.command: list[str] = []
        self._make_base()
        for stage in stages(dockerfile):
            self.workdir = root
            self.environment = clean_environment(
                {"PATH": os.pathsep.join((str(root / "base/bin"), os.environ["PATH"])), **AS_IT_IS}
            )
            for instruction in stage:
                self._carry_out(instruction)

    def inside(self, text: str) -> str:
        """Return a text of the Dockerfile with each path of the image replaced by the one below our root."""
        return PLACES.sub(f"{self._root}/", text)

    def _make_base(self) -> None:
        """Create what `python` is in the image: an interpreter with pip and nothing else."""
        base = self._root / "base"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", base], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(base / "bin/python"), "install", "--quiet", "--no-compile"]
        pins = self._context / "requirements/build.txt"
        subprocess.run([*pip, "--require-hashes", "-r", pins], check=True, timeout=BUILD_WITHIN)

    def _carry_out(self, instruction: Instruction) -> None:
        value, words = self.inside(instruction.value), [self.inside(word) for word in instruction.words]
        if instruction.name == "RUN" and value.startswith(CHANGES_THE_MACHINE):
            self.skipped.append(value)
        elif instruction.name == "RUN":
            done = subprocess.run(
                ["sh", "-c", value],
                cwd=self.workdir,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=BUILD_WITHIN,
                check=False,
            )
            assert done.returncode == 0, f"{instruction.value}\n{done.stdout}{done.stderr}"
        elif instruction.name == "COPY":
            self._copy(words)
        elif instruction.name == "ENV":
            for name, value in (word.split("=", 1) for word in words):
                self.environment[name] = VARIABLE.sub(lambda match: self.environment[match[1]], value)
        elif instruction.name == "WORKDIR":
            self.workdir = self._ours(Path(words[0]))
            self.workdir.mkdir(parents=True, exist_ok=True)
        elif instruction.name == "HEALTHCHECK":
            self.health = Instruction("CMD", value.partition("CMD ")[2]).words
        elif instruction.name == "ENTRYPOINT":
            self.entrypoint = words
        elif instruction.name == "CMD":
            self.command = words

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        if sources[0].startswith("--from="):
            # All stages share our root, and an environment works only in the place where it was created.
            assert sources[1:] == [target]
            assert Path(target).is_dir()
            return
        into = self._ours(self.workdir / target)
        for source in (self._context / source for source in sources):
            if source.is_dir():
                shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, into)

    def _ours(self, path: Path) -> Path:
        """Return the path itself, which must be below our root: any other would belong to this machine."""
        assert path.is_relative_to(self._root), f"{path}: PLACES does not know it"
        return path
