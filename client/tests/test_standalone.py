"""The client alone: no Docker, nothing stored. In a process of its own that watches what Python does."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
LOGIN = ("--user", "tenant1@example.com", "--password", "s3cret-pa$$")
# Ends the process at the first file opened for writing, program started, or socket that is not TCP.
WATCHED = """
import os, socket, sys

FORBIDDEN = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "sqlite3.connect",
             "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC

def watch(event, arguments):
    local = event == "socket.connect" and not isinstance(arguments[1], tuple)
    written = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if event in FORBIDDEN or written or local:
        os.write(2, f"{event} {arguments}".encode())
        os._exit(99)

sys.addaudithook(watch)
from smtp_proxy_client.cli import main
code = main()
assert not [name for name in sys.modules if "docker" in name or name.split(".")[0] == "smtp_proxy"]
sys.exit(code)
"""


@pytest.fixture
def alone(environment, tmp_path):
    """Run the client in an empty folder, with an empty home, and nothing on the PATH."""
    cwd, home, scratch = (tmp_path / name for name in ("cwd", "home", "scratch"))
    for folder in (cwd, home, scratch):
        folder.mkdir()
    own = environment | {"HOME": str(home), "TMPDIR": str(scratch), "XDG_CACHE_HOME": str(home)}

    def run(*arguments):
        ran = subprocess.run(
            [sys.executable, "-c", WATCHED, *map(str, arguments)],
            cwd=cwd,
            env=own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert [path for folder in (cwd, home, scratch) for path in folder.rglob("*")] == []
        return ran

    return run


@pytest.mark.parametrize(("command", "count"), [(("send",), 1), (("batch", "--count", "3", "--connections", "2"), 3)])
def test_nothing_is_written_and_no_docker_is_needed(serve, authority, alone, command, count):
    """REQ-INFRA-CLIENT-009, REQ-INFRA-CLIENT-010: mails arrive; no file is written, no program started."""
    server = serve()
    ran = alone(*command, *server.options("--ca-file", authority.ca_file, *LOGIN))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(server.mailbox.envelopes) == count


@pytest.mark.parametrize("command", ["send", "batch"])
def test_failures_are_not_stored_either(serve, alone, command):
    """REQ-INFRA-CLIENT-010: nor is a certificate that was looked at, or a mail that was refused."""
    server = serve()
    ran = alone(command, *server.options())
    assert ran.returncode == (4 if command == "send" else 1)
    assert "unknown issuer" in ran.stderr
    server.mailbox.on_data = lambda _count: "554 5.6.0 no"
    assert alone(command, *server.options("--insecure")).returncode == 1


def test_the_watch_itself_works(environment):
    """REQ-INFRA-CLIENT-010: a file that was written would be seen."""
    broken = WATCHED.replace("code = main()", "open('sent.eml', 'w')")
    ran = subprocess.run([sys.executable, "-c", broken], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 99
    assert "sent.eml" in ran.stderr


def test_dependencies_are_two_libraries():
    """REQ-INFRA-CLIENT-009: nothing of Docker, and nothing of the server, is needed to install it."""
    names = [re.split(r"[^a-z-]", line)[0] for line in tomllib.loads(PROJECT.read_text())["project"]["dependencies"]]
    assert names == ["typer", "cryptography"]
