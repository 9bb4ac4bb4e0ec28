"""The house holds: imports go down, a stage's params are the sections it loads, its deps cover what it imports."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fashionseg"
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.read_text().strip())
LAYERS = [  # from the bottom up
    ["errors"],
    ["rle", "params", "predictions", "io", "kaggle_client"],
    ["model/boxes", "model/anchors", "model/device", "model/nms", "model/roi_align", "data/competition", "masks"],
    ["model", "data"],
    ["callbacks", "claiming", "draw", "fusion", "model/mask_rcnn", "data/batches"],
    ["anatomy", "training", "inference", "evaluation", "summary"],
    ["export", "inspection", "report", "submission", "tuning"],
    ["sending"],
]
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}


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


def closure(path: Path) -> set[Path]:
    seen, todo = set(), [path]
    while todo:
        new = imported(todo.pop()) - seen
        seen |= new
        todo += new
    return {file for file in seen if file.read_text().strip()}  # an empty __init__ changes nothing


def module_name(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def layer(path: Path) -> int:
    name = module_name(path)
    return LAYER[name] if name in LAYER else LAYER[name.partition("/")[0]]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path):
    for other in imported(path):
        if other.name == "__init__.py" and not other.read_text().strip():
            continue
        room, other_room = path.parent, other.parent
        allowed = layer(other) < layer(path) or (room == other_room != PACKAGE and layer(other) == layer(path))
        assert allowed, f"{module_name(path)} imports {module_name(other)}, which is not below it"
        rooms = {room.name, other_room.name}
        assert rooms != {"model", "data"}, f"{module_name(path)} imports {module_name(other)}"


@pytest.mark.parametrize("path", [*MODULES, *(ROOT / "tests").rglob("*.py")], ids=lambda path: path.stem)
def test_nothing_imports_stages(path):
    names = {node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.split(".")[0] == "stages"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "model"], ids=module_name)
def test_no_numpy_in_the_graph(path):
    if path.stem in ("weights", "backbones", "pretrained"):  # read files of other frameworks before there is a graph
        pytest.skip("reads weight files into arrays")
    assert "numpy" not in path.read_text()
    assert "tensorflow" not in path.read_text()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_thin(name):
    assert len((ROOT / "stages" / f"{name}.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("name", STAGES)
def test_stage_params_are_what_it_loads(name):
    tree = ast.parse((ROOT / "stages" / f"{name}.py").read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "params.load"]
    assert len(calls) == 1, f"stages/{name}.py calls params.load {len(calls)} times"
    assert {argument.value for argument in calls[0].args} - {"machine"} == set(STAGES[name]["params"])


def keys_below(tree) -> set[str]:
    return set(tree).union(*map(keys_below, tree.values())) if isinstance(tree, dict) else set()


def test_run_cache_sees_every_param():
    """DVC's run cache drops keys called size and nfiles inside a listed section (treeverse/dvc#10296)."""
    assert not keys_below(PARAMS) & {"size", "nfiles"}


@pytest.mark.parametrize("name", STAGES)
def test_stage_deps_cover_its_imports(name):
    deps = [ROOT / dep for dep in STAGES[name]["deps"]]
    stage = ROOT / "stages" / f"{name}.py"
    missing = [
        str(file.relative_to(ROOT))
        for file in sorted(closure(stage) | {stage})
        if not any(file == dep or dep in file.parents for dep in deps)
    ]
    assert not missing, f"{name}: dvc.yaml deps lack {missing}"


@pytest.mark.parametrize("name", STAGES)
def test_stage_deps_are_used(name):
    """A module listed without being imported would repeat the stage for nothing."""
    used = closure(ROOT / "stages" / f"{name}.py")
    for dep in STAGES[name]["deps"]:
        if dep.startswith("src/"):
            path = ROOT / dep
            assert any(file == path or path in file.parents for file in used), f"{name} does not use {dep}"


@pytest.mark.parametrize("name", STAGES)
def test_stage_is_described(name):
    assert STAGES[name]["desc"]


@pytest.mark.parametrize("path", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_are_whole_params_files(path):
    from fashionseg import params

    assert params.load(*params.SECTIONS, path=path)
    if path.stem == "demo":
        assert path.read_text() == (ROOT / "params.yaml").read_text()
