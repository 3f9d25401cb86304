"""Writes each `_sync_NAME.py` from `_async_NAME.py`: the same code without `async` and `await`, blocking.

Works on tokens, so strings, comments and the layout stay as they are, but for these:

* A line that ends with the comment ``sync: CODE`` becomes CODE, at its own indentation; without CODE it vanishes.
* An awaited call of a native method (``await self._native.info()``) is waited for (``self._native.info().wait()``).
* Imports of `_async_NAME` become those of `_sync_NAME`.
* In docstrings the names of classes lose their `Async` as they do in code, and `await ` goes.

Usage: ``python tools/unasync.py [--check]``; `--check` writes nothing and fails if a file is not fresh.
"""

from __future__ import annotations

import argparse
import difflib
import io
import re
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (ROOT / "python" / "forkyard", ROOT / "tests" / "conformance")
HEADER = "# Written by tools/unasync.py from {source}: edit that file, then run the tool.\n"

NAMES = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "AsyncIterator": "Iterator",
    "StopAsyncIteration": "StopIteration",
}

# The attribute that holds a native object.
NATIVE = "_native"

DIRECTIVE = re.compile(r"#\s*sync:\s?(?P<code>.*)$")
ASYNC_NAME = re.compile(r"\bAsync(?=[A-Z])")


def rename(name: str) -> str:
    """The blocking API's word for a name of the async one."""
    if name.startswith("_async_"):
        return name.replace("_async_", "_sync_", 1)
    return NAMES.get(name) or ASYNC_NAME.sub("", name)


def apply_directives(source: str) -> str:
    """Replaces or removes the lines that say what stands in their place."""
    comments = {
        token.start[0]: match["code"].strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and (match := DIRECTIVE.match(token.string))
    }
    lines = []
    for number, line in enumerate(source.splitlines(keepends=True), start=1):
        if number not in comments:
            lines.append(line)
        elif code := comments[number]:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}{code}\n")
    return "".join(lines)


def native_call_ends(tokens: list[tokenize.TokenInfo]) -> set[tuple[int, int]]:
    """Where the awaited calls of native methods end: calls reached through an attribute called `_native`."""
    ends = set()
    for index, token in enumerate(tokens):
        if token.string != "await":
            continue
        primary = []
        for following in tokens[index + 1 :]:
            if following.type != tokenize.NAME and following.string != ".":
                break
            primary.append(following.string)
        opening = index + 1 + len(primary)
        if NATIVE in primary and tokens[opening].string == "(":
            ends.add(closing(tokens, opening).end)
    return ends


def closing(tokens: list[tokenize.TokenInfo], opening: int) -> tokenize.TokenInfo:
    """The bracket that closes the one at this index."""
    depth = 0
    for token in tokens[opening:]:
        if token.type == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
            if depth == 0:
                return token
    raise SyntaxError("a bracket is never closed")


def replacement(token: tokenize.TokenInfo) -> str:
    """What stands in the blocking code in place of a token."""
    if token.type == tokenize.STRING:
        return ASYNC_NAME.sub("", token.string).replace("await ", "")
    if token.type == tokenize.NAME:
        return "" if token.string in ("async", "await") else rename(token.string)
    return token.string


def unasync(source: str) -> str:
    """The blocking code for async code."""
    source = apply_directives(source)
    lines = source.splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    waits = native_call_ends(tokens)
    pieces = []
    row, column = 1, 0  # how far the source has been taken over
    for token in tokens:
        if token.type not in (tokenize.NAME, tokenize.STRING) and token.end not in waits:
            continue
        pieces.append(between(lines, (row, column), token.start))
        pieces.append(replacement(token))
        row, column = token.end
        if token.end in waits:
            pieces.append(".wait()")
        if token.string in ("async", "await"):
            # With the blank that follows.
            rest = lines[row - 1][column:]
            column += len(rest) - len(rest.lstrip(" "))
    pieces.append(between(lines, (row, column), (len(lines) + 1, 0)))
    return "".join(pieces)


def between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The source from one place (row from 1, column from 0) to another."""
    (row, column), (end_row, end_column) = start, end
    if row == end_row:
        return lines[row - 1][column:end_column] if row <= len(lines) else ""
    last = lines[end_row - 1][:end_column] if end_row <= len(lines) else ""
    return lines[row - 1][column:] + "".join(lines[row : end_row - 1]) + last


def main() -> int:
    """Runs the tool; 1 if `--check` found a file stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not fresh")
    arguments = parser.parse_args()
    wanted = {}
    for source in sorted(source for folder in FOLDERS for source in folder.glob("_async_*.py")):
        header = HEADER.format(source=source.name)
        wanted[source.parent / rename(source.name)] = header + unasync(source.read_text("utf-8"))
    written = (target for folder in FOLDERS for target in folder.glob("_sync_*.py"))
    found = {target: target.read_text("utf-8") for target in written}
    if arguments.check:
        return report(wanted, found)
    for target in found.keys() - wanted.keys():
        target.unlink()
    for target, text in wanted.items():
        if text != found.get(target):
            target.write_text(text, "utf-8")
    return 0


def report(wanted: dict[Path, str], found: dict[Path, str]) -> int:
    """Says what is stale; 1 if anything is."""
    stale = [target for target in sorted(wanted | found) if wanted.get(target) != found.get(target)]
    for target in stale:
        old, new = found.get(target, "").splitlines(), wanted.get(target, "").splitlines()
        diff = difflib.unified_diff(old, new, target.name, "fresh", lineterm="")
        print(*diff, f"{target} is stale: run python {Path(__file__).name}", sep="\n", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
