"""What our pages have people type, held to the command line itself: each command is there and takes what it is told.

What a script has must be whole. A mention in a sentence may leave arguments out, and also options that must be there if
it has none at all, or says `…`. Values are not looked at: pages write ID and NAME for them.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import typer

from smtp_proxy import cli

# Of which the name is not typer's to tell.
_UsageError = typer.BadParameter.__mro__[1]
_REST = "\N{HORIZONTAL ELLIPSIS}"
_ASSIGNED = r"(?:[A-Z_]+=\S+ )*"


def typed_in(page: str) -> list[tuple[str, bool]]:
    """The arguments of every `smtp-proxy …` in a page, and whether it stands in a script and not in a sentence."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    scripts = re.findall(r"^    (.*)$", page, re.MULTILINE) + [line for each in blocks for line in each.splitlines()]
    mentions = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page)
    return [
        (arguments, is_script)
        for lines, is_script in ((scripts, True), (mentions, False))
        for line in lines
        for arguments in _commands_of(line)
    ]


def _commands_of(line: str) -> list[str]:
    found = re.findall(r'\binside "([^"]+)"', line)
    for inner in re.findall(r"\$\(([^()]*)\)", line):
        found += _commands_of(inner)
    line = re.sub(r"\$\([^()]*\)", "FOUND", line)
    for command in re.split(r"\s*(?:\|\||&&|[|;&])\s*", line):
        said = re.match(rf"(?:\$ )?{_ASSIGNED}(?:\S*/)?smtp-proxy(?: (.*))?$", command.strip())
        if said is not None:
            found.append(said[1] or "")
    return found


def trouble_with(arguments: str, *, is_script: bool = True) -> str | None:
    """What is wrong with a command; None: nothing."""
    words = [word.strip("[]") for word in shlex.split(arguments.replace("<", "").replace(">", ""), comments=True)]
    is_whole = is_script or (_REST not in words and any(word.startswith("-") for word in words))
    command: Any = typer.main.get_command(cli.app)
    context = typer.Context(command, info_name="smtp-proxy")
    while hasattr(command, "commands"):
        parser = command.make_parser(context)
        parser.allow_interspersed_args = False
        try:
            _, words, _ = parser.parse_args(words)
        except _UsageError as error:
            return str(error)
        if not words:
            return None  # a name
        name, *words = words
        known = command.get_command(context, name)
        if known is None:
            return f"there is no command {name!r} in {context.command_path!r}"
        command, context = known, typer.Context(known, info_name=name, parent=context)
    return _trouble_with_arguments(command, context, words, is_script=is_script, is_whole=is_whole)


def _trouble_with_arguments(
    command: Any, context: typer.Context, words: list[str], *, is_script: bool, is_whole: bool
) -> str | None:
    try:
        told, left, _ = command.make_parser(context).parse_args(list(words))
    except _UsageError as error:
        return str(error)
    if left := [each for each in left if each != _REST]:
        return f"{context.command_path}: {left} is more than it takes"
    missing = [
        each.name
        for each in command.params
        if each.required and told.get(each.name) in (None, ()) and (is_script or each.param_type_name == "option")
    ]
    return f"{context.command_path}: {', '.join(missing)} is missing" if missing and is_whole else None
