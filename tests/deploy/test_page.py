"""deploy/README.md: it describes every file, and its steps create what the files need."""

import subprocess
from pathlib import Path

from tests.deploy.manifests import APP, DEPLOY
from tests.support.markdown import Page
from tests.support.process import clean_environment, run

PAGE = Page(DEPLOY / "README.md")
NOT_FOR_READERS = {"README.md", ".gitignore"}


def steps(first: str, last: str) -> str:
    """Return the commands from the one that begins with `first` to the one that begins with `last`."""
    lines = [line for block in PAGE.blocks("console") for line in block.code.replace("\\\n", "").splitlines()]
    commands = [line.removeprefix("$ ") for line in lines]
    begin, end = (next(n for n, line in enumerate(commands) if line.startswith(start)) for start in (first, last))
    return "\n".join(commands[begin : end + 1])


def test_it_leads_to_every_file_beside_it() -> None:
    files = {path.relative_to(DEPLOY).as_posix() for path in DEPLOY.rglob("*") if path.is_file()}
    shown = {name for name in files if Path(name).name not in NOT_FOR_READERS and "__pycache__" not in name}
    assert shown == {link for link in PAGE.links() if not link.startswith("../")}


def test_its_steps_for_compose_write_the_credentials_that_the_program_takes(tmp_path: Path) -> None:
    environment = clean_environment({"WHEREBY_WEBHOOK_SECRET": "the secret"})
    commands = steps("mkdir -m 700 secrets", "chmod 444 secrets")
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, env=environment, check=True)
    secrets = tmp_path / "secrets"
    password = (secrets / "database-password").read_text()
    assert len(password) == 48
    assert (secrets / "store-url").read_text() == f"postgresql://trigger:{password}@database:5432/trigger"
    shown = run("config", str(APP), cwd=tmp_path, env={"CREDENTIALS_DIRECTORY": str(secrets)})
    assert "1 set" in shown.stdout
    assert password not in shown.stdout
