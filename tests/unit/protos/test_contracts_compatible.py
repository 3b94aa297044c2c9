"""`make lint` refuses contracts that would break callers of the last release, or, before the first, of main."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TOY = 'syntax = "proto3";\n\npackage maand.toy.v1;\n\nmessage Toy {\n  string name = 1;\n  uint32 age = 2;\n}\n'
WITHOUT_AGE = TOY.replace("  uint32 age = 2;\n", "")
WITH_COLOUR = TOY.replace("}", "  string colour = 3;\n}")


class Repository:
    """A repository of its own with one contract."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "protos/maand_contracts/toy/v1").mkdir(parents=True)
        (directory / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/contracts-compatible", directory / "scripts")
        shutil.copy(ROOT / "protos/buf.yaml", directory / "protos")
        self.write(TOY)

    def write(self, toy: str) -> None:
        (self.directory / "protos/maand_contracts/toy/v1/toy.proto").write_text(toy)

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *who, *arguments], cwd=self.directory, check=True, capture_output=True)

    def commit(self, message: str = "a step") -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def compare(self) -> subprocess.CompletedProcess[str]:
        buf = Path(sys.executable).parent / "buf"
        command = [self.directory / "scripts/contracts-compatible", buf]
        return subprocess.run(command, cwd=self.directory / "protos", capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path)
    made.git("init", "-q")
    made.commit()
    return made


def test_what_callers_of_the_last_release_use_may_not_go(repository: Repository) -> None:
    repository.git("tag", "v0.1.0")
    repository.write(WITH_COLOUR)
    repository.commit()
    assert repository.compare().returncode == 0
    repository.git("tag", "v0.2.0")
    repository.write(TOY)
    repository.commit()
    compared = repository.compare()
    assert compared.returncode == 1
    assert "colour" in compared.stdout
    assert "the contracts as of v0.2.0 would break" in compared.stderr


def test_before_the_first_release_a_branch_is_compared_with_main_where_it_left_it(repository: Repository) -> None:
    repository.git("switch", "-q", "-c", "work")
    repository.write(WITHOUT_AGE)
    repository.commit()
    assert repository.compare().returncode == 1
    repository.write(WITH_COLOUR)
    repository.commit()
    assert repository.compare().returncode == 0


def test_a_commit_that_begins_anew_is_compared_with_from_then_on_before_the_first_release_only(repository: Repository) -> None:
    repository.git("switch", "-q", "-c", "work")
    repository.write(WITHOUT_AGE)
    repository.commit("Forget the age\n\nNobody asks for it.\n\nContracts: begin anew")
    assert repository.compare().returncode == 0
    repository.write(WITHOUT_AGE.replace("  string name = 1;\n", ""))
    repository.commit()
    assert repository.compare().returncode == 1, "what came later must fit to the new beginning"
    repository.write(TOY)
    repository.commit()
    repository.git("tag", "v0.1.0")
    repository.write(WITHOUT_AGE)
    repository.commit("Forget the age again\n\nContracts: begin anew")
    assert repository.compare().returncode == 1, "a release is a promise"


def test_what_is_not_committed_yet_counts(repository: Repository) -> None:
    repository.write(WITHOUT_AGE)
    assert repository.compare().returncode == 1


def test_without_a_history_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    compared = Repository(tmp_path).compare()
    assert (compared.returncode, compared.stdout) == (0, "contracts: no history here, nothing to compare with\n")
