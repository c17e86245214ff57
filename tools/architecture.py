"""Draws the pictures of docs/architecture.md from the imports that there are; with `--check` says whether they are so.

A module stands on the lowest floor above everything that it imports, imports under TYPE_CHECKING counted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BESIDE = ("counters", "hosts", "log", "settings", "tracing")
"""Modules that every floor may use, but `balancing` and `routing`."""
WIDTH = 66


def siblings(graph: grimp.ImportGraph, package: str) -> dict[str, set[str]]:
    """What each child of `package` imports of the others: a child that is a package counts as one."""
    children = {child.rpartition(".")[2] for child in graph.find_children(package)} - {"__init__"}
    imports: dict[str, set[str]] = {child: set() for child in children}
    prefix = f"{package}."
    for module in graph.modules:
        if not module.startswith(prefix):
            continue
        importer = module.removeprefix(prefix).partition(".")[0]
        for other in graph.find_modules_directly_imported_by(module):
            imported = other.removeprefix(prefix).partition(".")[0]
            if other.startswith(prefix) and imported != importer:
                imports[importer].add(imported)
    return imports


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """The modules by floor, the highest first. Raises RecursionError where the imports go in a circle."""
    heights: dict[str, int] = {}

    def height(module: str) -> int:
        if module not in heights:
            heights[module] = 1 + max((height(other) for other in imports[module]), default=-1)
        return heights[module]

    for module in imports:
        height(module)
    top = max(heights.values())
    return [sorted(name for name, at in heights.items() if at == floor) for floor in range(top, -1, -1)]


def draw(rows: list[list[str]]) -> str:
    """The floors as a picture."""
    lines = [f"┌{'─' * WIDTH}┐"]
    for row in rows:
        if len(lines) > 1:
            lines.append(f"├{'─' * WIDTH}┤")
        line = ""
        for name in row:
            if line and len(line) + len(name) + 3 > WIDTH - 2:
                lines.append(f"│ {line:{WIDTH - 2}} │")
                line = ""
            line += f"   {name}" if line else name
        lines.append(f"│ {line:{WIDTH - 2}} │")
    return "\n".join([*lines, f"└{'─' * WIDTH}┘"])


def rooms(graph: grimp.ImportGraph) -> str:
    """The balancer's rooms."""
    imports = siblings(graph, "balancer")
    for name in BESIDE:
        imports.pop(name, None)
    for imported in imports.values():
        imported.difference_update(BESIDE)
    return f"{draw(floors(imports))}\n  beside them: {', '.join(BESIDE)}"


def pictures() -> dict[str, str]:
    """Each picture by the name that its marker in the page has."""
    graph = grimp.build_graph("balancer")
    return {"rooms": rooms(graph), "balancing": draw(floors(siblings(graph, "balancer.balancing")))}


def main() -> int:
    """Put the pictures between their markers; with `--check` only compare."""
    old = text = PAGE.read_text(encoding="utf-8")
    for name, picture in pictures().items():
        begin, end = f"<!-- imports: {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begin)
        if not found:
            print(f"{PAGE.name} has no marker {begin.strip()}", file=sys.stderr)
            return 1
        text = f"{before}{begin}```\n{picture}\n```\n{end}{rest.partition(end)[2]}"
    if "--check" in sys.argv[1:]:
        if text != old:
            print(f"{PAGE.name} does not show the imports: `make generate` writes it", file=sys.stderr)
        return int(text != old)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
