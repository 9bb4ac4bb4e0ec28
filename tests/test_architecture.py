"""The house holds: imports go down, a stage's params are the sections it loads, its deps cover what it imports."""

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fashionseg"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
MODULES = sorted(path for path in (ROOT / "src").rglob("*.py") if path.read_text().strip())
SCRIPTS = sorted(
    path for folder in ("benchmarks", "notebooks", "tests/golden") for path in (ROOT / folder).rglob("*.py")
)
# Which packages a package may import, from the bottom up: only what stands above its own line.
ARROWS = {
    "core": set(),
    "console": set(),
    "model": {"core"},
    "data": {"core"},
    "coco": {"core"},
    "draw": {"core", "data"},
    "fashionseg_demo": {"core"},
    "download": {"core", "fashionseg_demo"},
    "convert": {"core"},
    "train": {"core", "coco", "console", "data", "model"},
    "ensemble": {"core"},
    "predict": {"core", "coco", "console", "data", "draw", "model"},
    "deploy": {"coco", "core", "draw", "predict"},
    "__init__": {"core", "deploy"},
    "evaluate": {"core", "coco", "draw"},
    "submit": {"core", "coco", "download"},
    "report": {"core", "draw"},
    "params": {"core", "data", "download", "convert", "evaluate", "model", "predict", "submit", "train"},
    "__main__": {"__init__", "core", "deploy", "draw", "params", "predict", "report", "submit"},
}
# What a stage may import without depending on it, since no output follows from it: DVC tracks the values that params
# reads, the console only prints, and of the package itself no stage calls `load`.
NO_DEPS = [PACKAGE / "params.py", PACKAGE / "console", PACKAGE / "__init__.py"]


def imported(path: Path) -> set[Path]:
    """Project files that `path` names in its import statements, function-level ones included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            file = ROOT / "src" / Path(*name.split("."))
            found |= {f for f in (file.with_suffix(".py"), file / "__init__.py") if f.exists()}
    return found


def closure(path: Path, stop: Sequence[Path] = ()) -> set[Path]:
    """Project files that `path` imports, directly or not; what lies in `stop` is neither listed nor followed."""
    seen, todo = set(), [path]
    while todo:
        new = {file for file in imported(todo.pop()) if not below(file, stop)} - seen
        seen |= new
        todo += new
    return {file for file in seen if file.read_text().strip()}  # an empty __init__ changes nothing


def defined(path: Path) -> set[str]:
    """Every name that a module gives to something, imports included."""
    names = {"__file__"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def below(file: Path, folders: Sequence[Path]) -> bool:
    return any(file == folder or folder in file.parents for folder in folders)


def package(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return parts[1] if parts[0] == "fashionseg" else parts[0]


def module_name(path: Path) -> str:
    return path.relative_to(ROOT / "src").with_suffix("").as_posix().removeprefix("fashionseg/")


def test_arrows_go_down():
    names = list(ARROWS)
    for place, (name, others) in enumerate(ARROWS.items()):
        assert others <= set(names[:place]), f"{name} would import {others - set(names[:place])}, which is above it"
    assert set(names) == {package(path) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_follow_the_arrows(path):
    for other in imported(path):
        if other.name != "__init__.py" or other.read_text().strip():
            allowed = {package(path), *ARROWS[package(path)]}
            assert package(other) in allowed, f"{module_name(path)} imports {module_name(other)}"
    assert path not in closure(path), f"{module_name(path)} imports itself through others"


def test_no_module_stands_loose():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "params.py"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_pictures_are_written_by_what_raises_errors(path):
    """OpenCV's imwrite leaves an empty or a cut file on a full disk, and says nothing."""
    assert "imwrite" not in path.read_text()


@pytest.mark.parametrize("path", [*MODULES, *(ROOT / "tests").rglob("*.py")], ids=lambda path: path.stem)
def test_nothing_imports_stages(path):
    names = {node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.split(".")[0] == "stages"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "model"], ids=module_name)
def test_no_numpy_in_the_graph(path):
    # These work before there is a graph.
    if path.stem in ("state_dict", "backbones", "efficientnet_lite", "initializers"):
        pytest.skip("fills arrays for the first weights")
    assert "numpy" not in path.read_text()
    if path.stem != "compilation":  # which asks TensorFlow for XLA
        assert "tensorflow" not in path.read_text()


@pytest.mark.parametrize("path", [*MODULES, *(ROOT / "stages").glob("*.py")], ids=lambda path: path.stem)
def test_no_call_has_more_than_five_positional_values(path):
    """Names aside, as `params.load` takes them, and but for OpenCV, which has few keywords."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        values = [value for value in call.args if not isinstance(value, ast.Constant | ast.Starred)]
        assert len(values) <= 5 or ast.unparse(call.func).startswith("cv2."), f"{path}:{call.lineno}"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_thin(name):
    assert len((ROOT / "stages" / f"{name}.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("path", [*(ROOT / "stages").glob("*.py"), PACKAGE / "__main__.py"], ids=lambda path: path.stem)
def test_stages_read_json_of_a_form(path):
    """So that null, another type or a foreign id is one sentence that names the file; `documents.read` looks."""
    assert "read_json" not in path.read_text()


@pytest.mark.parametrize("name", STAGES)
def test_stage_params_are_what_it_loads(name):
    tree = ast.parse((ROOT / "stages" / f"{name}.py").read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "params.load"]
    assert len(calls) == 1, f"stages/{name}.py calls params.load {len(calls)} times"
    sections = {key.partition(".")[0] for key in STAGES[name]["params"]}
    assert {argument.value for argument in calls[0].args} - {"machine"} == sections


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_that_no_test_runs_names_what_there_is(path):
    """Names that it imports from the project, takes from its modules, or has `patch.object` replace there."""
    nodes, modules, missing = [*ast.walk(ast.parse(path.read_text()))], {}, []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fashionseg"):
            source = ROOT / "src" / Path(*node.module.split("."))
            own = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
            for alias in node.names:
                if (module := source / f"{alias.name}.py").exists():
                    modules[alias.asname or alias.name] = defined(module)
                elif alias.name not in defined(own):
                    missing.append(f"{node.module}.{alias.name}")
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in modules:
                pass
            case ast.Call(
                func=ast.Attribute(attr="object"), args=[ast.Name(id=module), ast.Constant(value=name), *_]
            ) if module in modules:
                pass
            case _:
                continue
        if name not in modules[module]:
            missing.append(f"{module}.{name}")
    assert not missing


def keys_below(tree) -> set[str]:
    return set(tree).union(*map(keys_below, tree.values())) if isinstance(tree, dict) else set()


def test_run_cache_sees_every_param():
    """DVC's run cache drops keys called size and nfiles inside a listed section (treeverse/dvc#10296)."""
    assert not keys_below(PARAMS) & {"size", "nfiles"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_folders_that_it_imports(name):
    """Whole folders, so that dvc.yaml stays short and a new module needs no line in it; one without use would repeat
    the stage for nothing."""
    stage = ROOT / "stages" / f"{name}.py"
    folders = {ROOT / dep for dep in STAGES[name]["deps"] if dep.startswith("src/")}
    assert 1 <= len(folders) <= 5
    assert all(folder.is_dir() for folder in folders)
    used = closure(stage, NO_DEPS)
    missing = [module_name(file) for file in sorted(used) if not below(file, list(folders))]
    assert not missing, f"{name}: dvc.yaml deps lack {missing}"
    idle = [str(folder) for folder in folders if not any(below(file, [folder]) for file in used)]
    assert not idle, f"{name} does not use {idle}"
    assert f"stages/{name}.py" in STAGES[name]["deps"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_described_and_runs_its_own_sources(name):
    assert STAGES[name]["desc"]
    assert STAGES[name]["cmd"].startswith(f"sh stages/run {name} ")


def test_a_second_host_is_told_to_start_the_stage_as_dvc_does():
    command = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]["cmd"]
    assert f"KERAS_DISTRIBUTION_PROCESS_ID=1 {command}\n" in (ROOT / "docs/training.md").read_text()
