"""What runs all tests: none is left out, and none fails unnoticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    pathlib.Path("ending").touch()
    time.sleep(60 if pathlib.Path("slow").exists() else 1)
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


def test_what_can_not_be_imported_fails_all_and_the_others_still_run(checkout: Path) -> None:
    """Pytest ends then as it does by Ctrl-C."""
    (checkout / "tests/e2e/test_bad.py").write_text("import there_is_no_such_module\n")
    done = run(checkout, "-v")
    assert done.returncode == side_by_side.INTERRUPTED
    assert done.stdout.count(" PASSED") == 3


@contextmanager
def running(checkout: Path) -> Iterator[subprocess.Popen[str]]:
    """Up to where a test is under way."""
    (checkout / "tests/e2e/test_long.py").write_text(LONG)
    with subprocess.Popen(
        command(checkout), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        until_there(checkout / "began")
        yield process


def until_there(file: Path) -> None:
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{file.name} did not come")


@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_lets_the_servers_of_tests_end_and_begins_nothing_more(checkout: Path, again: bool) -> None:
    """Though pytest has an exit code of its own for it only as long as it runs tests."""
    if again:
        (checkout / "slow").touch()
    with running(checkout) as process:
        os.killpg(process.pid, signal.SIGINT)
        if again:
            until_there(checkout / "ending")
            os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate()
    assert process.returncode == side_by_side.INTERRUPTED
    assert (checkout / "ended").exists() is not again
    assert "test_1.py" not in said


def test_sigterm_leaves_nothing_running(checkout: Path) -> None:
    with running(checkout) as process:
        process.terminate()
        said, _ = process.communicate()
    assert process.returncode == side_by_side.INTERRUPTED
    assert (checkout / "ended").exists()
    assert "test_1.py" not in said


@pytest.mark.parametrize(
    ("option", "suits"),
    [
        ("tests/unit", False),
        ("tests/spec/test_clock.py::test_none", False),
        ("--basetemp=/x", False),
        ("--junitxml=x", False),
        ("-v", True),
        ("tests", False),
        ("a/b", True),
    ],
)
def test_what_would_run_in_every_session_is_refused(
    option: str, suits: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(side_by_side, "run", lambda _root, options: 0)
    assert side_by_side.main(["-q", option]) == (0 if suits else side_by_side.BAD_USAGE)
    assert (option in capsys.readouterr().err) is not suits


def test_a_word_may_be_the_name_of_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "run", lambda _root, options: 0)
    assert side_by_side.main(["-k", "tests"]) == 0


def test_the_worst_that_is_no_failure_of_a_test_counts_too() -> None:
    assert side_by_side.status([0, -9, 0]) == -9
    assert side_by_side.status([5, 0, 2]) == 2
    assert side_by_side.status([0, 3, 4]) == 3
    assert side_by_side.status([5, 0, 5]) == 0


def test_all_that_pytest_finds_by_itself_is_there() -> None:
    rest = side_by_side.the_rest(side_by_side.ROOT)
    assert rest[:2] == ["tests", "client/tests"]
    for folder in (*side_by_side.ALONE, *side_by_side.WAITING):
        assert (side_by_side.ROOT / folder).is_dir()
        assert f"--ignore={folder}" in rest
