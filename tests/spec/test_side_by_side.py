"""What runs all tests: none is left out, and none fails unnoticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import side_by_side

FOLDERS = ("tests/e2e", "tests/integration", "tests/other", "client/tests")
ENVIRONMENT = {"PYTHONPATH": str(Path(side_by_side.__file__).parent), "PATH": "/usr/bin:/bin"}
# A server takes a moment to end.
LONG = """
import pathlib, time, pytest

@pytest.fixture
def server():
    yield
    time.sleep(1)
    pathlib.Path("ended").touch()

def test_long(server):
    pathlib.Path("began").touch()
    time.sleep(60)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """With one test in each folder."""
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\ntestpaths = ["tests", "client/tests"]\n')
    for number, folder in enumerate(FOLDERS):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"test_{number}.py").write_text(f"def test_of_{number}():\n    pass\n")
    return tmp_path


def command(checkout: Path, *options: str) -> list[str]:
    code = "import side_by_side, sys, pathlib; sys.exit(side_by_side.run(pathlib.Path(sys.argv[1]), sys.argv[2:]))"
    return [sys.executable, "-c", code, str(checkout), "-p", "no:cacheprovider", *options]


def run(checkout: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(checkout, *options), env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_each_runs_once(checkout: Path) -> None:
    done = run(checkout, "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [done.stdout.count(f"test_of_{number} PASSED") for number in range(4)] == [1, 1, 1, 1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_one_that_fails_anywhere_fails_all_and_the_others_still_run(checkout: Path, folder: str) -> None:
    (checkout / folder / "test_bad.py").write_text("def test_bad():\n    assert 1 == 2\n")
    done = run(checkout, "-v")
    assert done.returncode == 1
    assert "test_bad FAILED" in done.stdout
    assert done.stdout.count(" PASSED") == 4


def test_options_may_leave_nothing_of_a_part_but_not_of_all(checkout: Path) -> None:
    assert run(checkout, "-k", "test_of_1").returncode == 0
    assert run(checkout, "-k", "nothing").returncode == side_by_side.NOTHING_COLLECTED


def test_ctrl_c_lets_the_servers_of_tests_end_and_begins_nothing_more(checkout: Path) -> None:
    (checkout / "tests/e2e/test_long.py").write_text(LONG)
    running = subprocess.Popen(
        command(checkout), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with running:
        for _ in range(600):
            if (checkout / "began").exists():
                break
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)
        said, _ = running.communicate()
    assert running.returncode == side_by_side.INTERRUPTED
    assert (checkout / "ended").exists()
    assert "KeyboardInterrupt" in said
    assert "test_1.py" not in said


def test_the_worst_that_is_no_failure_of_a_test_counts_too() -> None:
    assert side_by_side.status([0, -9, 0]) == -9
    assert side_by_side.status([5, 0, 2]) == 2
    assert side_by_side.status([5, 0, 5]) == 0


def test_all_that_pytest_finds_by_itself_is_there() -> None:
    rest = side_by_side.the_rest(side_by_side.ROOT)
    assert rest[:2] == ["tests", "client/tests"]
    for folder in (*side_by_side.ALONE, *side_by_side.WAITING):
        assert (side_by_side.ROOT / folder).is_dir()
        assert f"--ignore={folder}" in rest
