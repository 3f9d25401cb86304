"""The agent inside each machine: reviews /workspace/project from one perspective and answers with one line of JSON.

It imports its tools once, looks at the project once, and then waits: whoever writes a perspective's name into the pipe
``/workspace/ask`` reads the answer from ``/workspace/answer``. Frozen while it waits, it is ready in every fork.
"""

from __future__ import annotations

import ast
import json
import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from bandit.core.config import BanditConfig
from bandit.core.manager import BanditManager
from radon.complexity import cc_rank, cc_visit
from radon.metrics import mi_visit

PROJECT = Path("/workspace/project")
LONGEST_FUNCTION, MOST_ARGUMENTS, MOST_COMPLEX = 25, 5, 5

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Finding(NamedTuple):
    """Something that a perspective does not like, and how much of the ten points it costs."""

    file: str
    line: int
    message: str
    cost: float


def sources() -> Iterator[tuple[str, str, ast.Module]]:
    """The project's modules, without its tests: name, text and tree."""
    for path in sorted(PROJECT.glob("*.py")):
        text = path.read_text()
        yield path.name, text, ast.parse(text)


def functions(tree: ast.Module) -> Iterator[Function]:
    """All functions and methods of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def is_public(node: Function | ast.ClassDef) -> bool:
    """Whether others may use it."""
    return not node.name.startswith("_")


def security() -> Iterator[Finding]:
    """What bandit finds."""
    manager = BanditManager(BanditConfig(), "file")
    manager.discover_files([str(path) for path in sorted(PROJECT.glob("*.py"))])
    manager.run_tests()
    costs = {"LOW": 0.5, "MEDIUM": 1.5, "HIGH": 3.0}
    for issue in manager.get_issue_list():
        yield Finding(Path(issue.fname).name, issue.lineno, f"{issue.test_id}: {issue.text}", costs[issue.severity])


def complexity() -> Iterator[Finding]:
    """What radon measures: functions with many paths, and modules that are hard to maintain."""
    for name, text, _ in sources():
        for block in cc_visit(text):
            if block.complexity > MOST_COMPLEX:
                message = f"{block.name} has complexity {block.complexity} (rank {cc_rank(block.complexity)})"
                yield Finding(name, block.lineno, message, (block.complexity - MOST_COMPLEX) / 2)
        index = mi_visit(text, multi=True)
        if index < 50:
            yield Finding(name, 1, f"maintainability index {index:.0f} of 100", 1.0)


def docstrings() -> Iterator[Finding]:
    """What is public and says nothing of itself."""
    for name, _, tree in sources():
        if ast.get_docstring(tree) is None:
            yield Finding(name, 1, "the module has no docstring", 0.5)
        for node in ast.walk(tree):
            if isinstance(node, Function | ast.ClassDef) and is_public(node) and ast.get_docstring(node) is None:
                yield Finding(name, node.lineno, f"{node.name} has no docstring", 0.75)


def tests() -> Iterator[Finding]:
    """What is public and that no test calls."""
    called = set()
    for path in sorted(PROJECT.glob("tests/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name | ast.Attribute):
                called.add(node.id if isinstance(node, ast.Name) else node.attr)
    for name, _, tree in sources():
        for node in functions(tree):
            if is_public(node) and node.name not in called:
                yield Finding(name, node.lineno, f"no test calls {node.name}", 1.0)


def structure() -> Iterator[Finding]:
    """Long functions, long argument lists, defaults that are shared, errors that are swallowed, imports for nothing."""
    for name, _, tree in sources():
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    bound = alias.asname or alias.name.split(".")[0]
                    if bound not in used:
                        yield Finding(name, node.lineno, f"{bound} is imported and not used", 0.5)
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                yield Finding(name, node.lineno, "a bare except swallows every error", 1.5)
        for node in functions(tree):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield Finding(name, node.lineno, f"{node.name} has {length} lines", 1.5)
            arguments = len(node.args.args) + len(node.args.kwonlyargs)
            if arguments > MOST_ARGUMENTS:
                yield Finding(name, node.lineno, f"{node.name} takes {arguments} arguments", 1.0)
            if any(isinstance(default, ast.List | ast.Dict | ast.Set) for default in node.args.defaults):
                yield Finding(name, node.lineno, f"{node.name} shares a mutable default between calls", 1.5)


PERSPECTIVES: dict[str, Callable[[], Iterator[Finding]]] = {
    "security": security,
    "complexity": complexity,
    "docstrings": docstrings,
    "tests": tests,
    "structure": structure,
}


def review(perspective: str) -> dict[str, object]:
    """A perspective's answer: a score out of ten, and what cost points."""
    if perspective == "tools":
        return {"python": platform.python_version(), "bandit": version("bandit"), "radon": version("radon")}
    if perspective not in PERSPECTIVES:
        return {"error": f"no perspective {perspective!r}; there are: {', '.join(PERSPECTIVES)}"}
    findings = sorted(PERSPECTIVES[perspective](), key=lambda finding: (-finding.cost, finding.file, finding.line))
    score = max(0.0, 10.0 - sum(finding.cost for finding in findings))
    return {
        "perspective": perspective,
        "score": round(score, 1),
        "findings": [finding._asdict() for finding in findings],
    }


def serve() -> None:
    """Answers until the machine ends."""
    for perspective in PERSPECTIVES.values():
        # Code that only loads when it is first run is then frozen with the rest.
        list(perspective())
    os.mkfifo("/workspace/answer")
    os.mkfifo("/workspace/ask")
    while True:
        perspective = Path("/workspace/ask").read_text().strip()
        Path("/workspace/answer").write_text(json.dumps(review(perspective)) + "\n")


if __name__ == "__main__":
    serve()
