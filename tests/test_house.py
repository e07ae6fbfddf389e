"""The house rules that a program can check: sizes, who imports what, what a test may touch, what stands once."""

import ast
import collections
import configparser
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from support import REPOSITORY

MODULE_LINES = 300
FUNCTION_LINES = 50
SAME_LINES = 6
SETTINGS_IMPORTERS = 8


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(paths: Iterable[Path]) -> Iterator[tuple[Path, Function]]:
    for path in paths:
        yield from ((path, node) for node in ast.walk(parsed(path)) if isinstance(node, Function))


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names of what a module imports: `a.b` for `import a.b` and for `from a import b`."""
    conditions = [node for node in parsed(path).body if isinstance(node, ast.If)]
    for_types = [node for node in conditions if ast.unparse(node.test) == "TYPE_CHECKING"]
    skipped = {id(inner) for node in for_types for inner in ast.walk(node)}
    for node in ast.walk(parsed(path)):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def requirements_in(lines: str) -> list[str]:
    return [line for line in lines.splitlines() if line and not line.startswith("#")]


def test_what_is_installed_without_tensorflow_is_the_rest():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    extras = setup["options.extras_require"]
    expected = [setup["options"]["install_requires"], *(extras[name] for name in ("jax", "demo", "test"))]
    listed = requirements_in((REPOSITORY / "requirements-jax.txt").read_text())
    (tensorflow,) = [line for line in requirements_in(expected[0]) if line.startswith("tensorflow>")]
    assert [tensorflow, *listed] == [line for lines in expected for line in requirements_in(lines)]


def test_modules_are_short():
    lines = {name_of(path): len(path.read_text().splitlines()) for path in files("ktl", "experiments")}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES} == {}


def test_functions_are_short_or_tell_why():
    """The reason stands in a comment beside the function's name or right above it."""
    found = set()
    for path, function in functions_of(files("ktl", "experiments")):
        lines = path.read_text().splitlines()
        first = min(node.lineno for node in (function, *function.decorator_list))
        told = "#" in lines[function.lineno - 1] or lines[first - 2].strip().startswith("#")
        if function.end_lineno - function.lineno >= FUNCTION_LINES and not told:
            found.add(f"{name_of(path)}:{function.name}")
    assert found == set()


def test_few_modules_know_the_settings():
    names_everything = REPOSITORY / "ktl" / "__init__.py"
    others = [path for path in files("ktl") if path.parent.name != "config" and path != names_everything]
    importers = {name_of(path) for path in others if any(f"{n}.".startswith("ktl.config.") for n in imports_of(path))}
    assert len(importers) <= SETTINGS_IMPORTERS, sorted(importers)


def test_every_package_says_in_three_lines_what_lives_there_and_what_it_may_import():
    for path in files("ktl"):
        if path.name == "__init__.py" and path.parent.name != "ktl":
            docstring = ast.get_docstring(parsed(path)) or ""
            assert len([line for line in docstring.splitlines() if line.strip()]) == 3, name_of(path)
            assert "import" in docstring, name_of(path)


def test_packages_import_what_they_say_that_they_may():
    packages = {path.parent.name: path for path in files("ktl") if path.name == "__init__.py"}
    for name, path in packages.items():
        if path.parent.parent != REPOSITORY / "ktl":  # a checkout may have that name, too
            continue
        said = re.search(r"May import .*?\.(?= |$)", ast.get_docstring(parsed(path)), re.MULTILINE | re.DOTALL)[0]
        imported = {
            each.split(".")[1] for module in files(f"ktl/{name}") for each in imports_of(module) if "ktl." in each
        }
        named = imported & set(packages) - {name, "ktl"}
        if not re.search("all below|every package|all packages below", said):
            assert named <= set(re.findall(r"\w+", said)), f"{name}: {said}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name.strip("_") != ""


def private_names(path: Path) -> Iterator[str]:
    """What a test touches that is not its own: `thing._name`, `from thing import _name`, `setattr(thing, "_name")`."""
    for node in ast.walk(parsed(path)):
        match node:
            case (
                ast.Attribute(value=ast.Name(id="self" | "cls")) | ast.Attribute(value=ast.Name(id="os"), attr="_exit")
            ):
                pass
            case ast.Attribute(attr=name) if is_private(name):
                yield ast.unparse(node)
            case ast.ImportFrom(names=names):
                yield from (alias.name for alias in names if is_private(alias.name))
            case ast.Call(func=ast.Name(id="setattr" | "getattr") | ast.Attribute(attr="setattr"), args=[*arguments]):
                texts = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                yield from (text for text in texts if is_private(text.split(".")[-1]))


def test_tests_touch_no_private_name():
    found = {f"{name_of(path)}: {name}" for path in files("tests") for name in private_names(path)}
    assert found == set()


def test_two_test_files_define_nothing_alike():
    places = collections.defaultdict(set)
    for path, function in functions_of(files("tests")):
        text = "\n".join(map(ast.unparse, function.body))
        if len(text.splitlines()) >= SAME_LINES:
            places[text].add((name_of(path), function.name))
    alike = [same for same in places.values() if len({file for file, _ in same}) > 1]
    assert {f"{file}:{name}" for same in alike for file, name in same} == set()


def test_no_fixture_looks_like_a_test():
    for path, function in functions_of(files("tests")):
        fixture = any("pytest.fixture" in ast.unparse(decorator) for decorator in function.decorator_list)
        assert not (fixture and function.name.startswith("test")), f"{name_of(path)}:{function.name}"


def test_tests_mirror_the_packages():
    """A file of tests is a module's; what packages do together lies in tests/integration and tests/faults."""
    modules = {path.relative_to(REPOSITORY / "ktl") for path in files("ktl")}
    mirrored = {path.parent / f"test_{path.name}" for path in modules}
    found = {path.relative_to(REPOSITORY / "tests") for path in files("tests") if path.name.startswith("test_")}
    alone = {path for path in found if path.parts[0] not in ("integration", "faults", "experiments")}
    assert {str(path) for path in alone - mirrored} == {"test_house.py", "test_imports.py"}
