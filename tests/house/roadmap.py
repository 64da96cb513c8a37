"""The road map: what is in each folder and module?  Writes the end of README.md from the modules' own first lines.

python tests/house/roadmap.py            # part of `make docs`; test_house.py holds README to it
"""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TITLE = "## Road map\n"
FOLDERS = {
    "elemta": "the engine and all that both daemons share",
    "milter/elemta_milter": "the milter daemon; see [milter/README.md](milter/README.md)",
    "policyd/elemta_policyd": "the policy daemon; see [policyd/README.md](policyd/README.md)",
    "plugins/elemta_plugins": "the plugins that come with it; see [docs/plugins.md](docs/plugins.md)",
}
OTHERS = {
    "postfix-conf/": "main.cf and master.cf as templates, for the local stack and the container alike",
    "docker/, Dockerfile, docker-compose.yml": "the container images, and both joined by a volume of sockets",
    "docs/": "configuration.md (written by the code), monitoring.md, and what else an administrator reads",
    "tests/": "mirrors the packages; live/ with real Postfix, docker/ with containers, cases/ goldens, bench/ figures, "
    "daemon/ real processes, harness/ what they share, demo/ behind `make run`, house/ the rules of this house",
}


def first_line(path: Path) -> str:
    """The first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def modules(folder: str) -> list[Path]:
    """The Python files that git knows below `folder`, packages before their modules."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", f"{folder}/*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = {ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()}
    return sorted(paths, key=lambda path: (path.parent.parts, path.name != "__init__.py", path.name))


def roadmap() -> str:
    """The section, without its title."""
    lines = ["", "Written by `make docs` from each module's first line.", ""]
    for folder, meaning in FOLDERS.items():
        lines += [f"### {folder}/", "", f"{meaning[:1].upper()}{meaning[1:]}.", "", "| module | what |", "|---|---|"]
        for path in modules(folder):
            name = path.relative_to(ROOT / folder)
            if name.name == "__init__.py":
                if len(name.parts) > 1:
                    lines.append(f"| **{name.parent}/** | {first_line(path)} |")
            else:
                lines.append(f"| {name} | {first_line(path)} |")
        lines.append("")
    lines += ["### The rest", "", "| where | what |", "|---|---|"]
    lines += [f"| {where} | {what} |" for where, what in OTHERS.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write it."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text[: text.index(TITLE)] + TITLE + roadmap(), encoding="utf-8")


if __name__ == "__main__":
    main()
