"""`make deps`: writes into dvc.yaml which code and which package versions each stage runs.

DVC does not follow imports. Code: every file of the project that a stage imports, a folder on one
line where the stage uses all of it. Packages: `packages.yaml` holds the versions pinned in
constraints/runtime.txt, and a stage has those that it imports among its params, so that an upgrade
of Pillow reruns the stages that read pictures and no others.
"""

from __future__ import annotations

import re
import shlex
import sys
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from mufin.code import OURS, ROOT, files_of, packages_of

PIPELINES = ("dvc.yaml", "compare/dvc.yaml")
PACKAGES = "packages.yaml"
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cykooz_resizer": "cykooz-resizer",
    "hnswlib": "chroma-hnswlib",
    "sklearn": "scikit-learn",
}  # by module
# these decide no result
TOOLS = {
    "dvc",
    "jinja2",
    "markupsafe",
    "psutil",
    "ray",
    "requests",
    "ruamel",
    "safetensors",
    "tqdm",
    "typer",
    "urllib3",
}
HEADER = (
    "# Written by `make deps` from constraints/runtime.txt: the packages that decide results.\n"
)


def main() -> None:
    for path, text in written().items():
        if path.read_text() != text if path.exists() else True:
            path.write_text(text)
            print(f"{path.relative_to(ROOT)} written")


def written(root: Path = ROOT) -> dict[Path, str]:
    """{file: text} as `make deps` writes them."""
    versions = pinned((root / "constraints/runtime.txt").read_text())
    files, used = {}, set()
    for name in PIPELINES:
        if (root / name).exists():
            files[root / name], packages = _pipeline(root / name, versions)
            used |= packages
    lines = [f'{name}: "{versions[name]}"\n' for name in sorted(used)]
    return files | {root / PACKAGES: HEADER + "".join(lines)}


def pinned(text: str) -> dict[str, str]:
    """{package: version} of the lines `package==version`."""
    return {m[1].lower(): m[2] for m in re.finditer(r"(?m)^([\w.-]+)==([^\s;#]+)", text)}


def _pipeline(path: Path, versions: dict[str, str]) -> tuple[str, set[str]]:
    """A dvc.yaml with the deps and package params of its stages, and all packages in it."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    content, used = yaml.load(path.read_text()), set()
    # paths are relative to the file; DVC applies .dvcignore (to __pycache__) below its root alone,
    # so that a folder elsewhere cannot be a dep
    up, fold = ("", True) if path.parent == ROOT else ("../", False)
    for stage in content["stages"].values():
        deps = stage.get("deps", [])
        own = [dep.removeprefix(up) for dep in deps if dep.startswith(up)]
        scripts = _scripts(stage, own)
        packages = sorted(package_names(scripts) & set(versions))
        used |= set(packages)
        file = up + PACKAGES
        others = [p for p in stage.get("params", []) if not (isinstance(p, dict) and file in p)]
        params = CommentedSeq([*others, CommentedMap({file: CommentedSeq(packages)})])
        code = [up + dep for dep in code_deps(scripts, _templates(own), fold)]
        deps = CommentedSeq([*(dep for dep in deps if not _is_code(dep.removeprefix(up))), *code])
        outs = stage.pop("outs")
        for name, value in (("params", params), ("deps", deps), ("outs", outs)):  # in this order
            stage.pop(name, None)
            stage[name] = value
    with StringIO() as out:
        yaml.dump(content, out)
        return out.getvalue(), used


def _scripts(stage: dict, deps: list[str]) -> list[Path]:
    """The scripts that a stage runs.

    That of its command, those that a dep like `x/${item.name}.py` stands for, and stages of the
    pipeline that are among its deps: a variant of the study runs them by name.
    """
    words = shlex.split(stage["cmd"])
    scripts = [ROOT / f"{words[words.index('-m') + 1].replace('.', '/')}.py"]
    for template in _templates(deps):
        scripts += sorted((ROOT / template).parent.glob("[!_]*.py"))
    stages = [ROOT / dep for dep in deps if re.fullmatch(r"pipeline/[a-z]\w*\.py", dep)]
    return scripts + [path for path in stages if path.exists()]


def _templates(deps: list[str]) -> list[str]:
    return [dep for dep in deps if dep.endswith(".py") and "${" in dep]


def _is_code(dep: str) -> bool:
    """Whether a dep is a Python file of this project, or a folder of them; no template of names."""
    code = dep.endswith(".py") or "." not in dep
    return "${" not in dep and dep.split("/")[0] in OURS and code


def code_deps(scripts: list[Path], templates: list[str], fold: bool = True) -> list[str]:
    """The files that `scripts` run, as deps: sorted; a folder on one line where all of it is used.

    A file that a template names is left out: the template stands for it.
    """
    named = {ROOT / template for template in templates}
    folders = {template.parent for template in named}
    files = {f for script in scripts for f in files_of(script)}
    files = {f for f in files if f.parent not in folders or f.name.startswith("_")}
    deps = set()
    for file in files:
        folder = file.parent
        own = set(folder.glob("*.py"))
        whole = fold and folder.parent == ROOT / "mufin" and own <= files
        deps.add(folder if whole else file)
    return sorted(str(dep.relative_to(ROOT)) for dep in deps)


def package_names(scripts: list[Path]) -> set[str]:
    """The distributions that `scripts` import and that decide results."""
    modules = set().union(*map(packages_of, scripts)) - set(sys.stdlib_module_names) - TOOLS
    return {DISTRIBUTIONS.get(module, module).lower() for module in modules}


if __name__ == "__main__":
    main()
