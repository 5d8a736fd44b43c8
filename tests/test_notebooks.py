"Every notebook runs, is in step with the package, clean and light; every exercise's solution passes and its wrong answers do not."
import ast, importlib.util, json, os, re, shutil, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells(path):
    return [(c["cell_type"], "".join(c["source"]), c) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]


@by_name
def test_runs(path):
    env = {**os.environ, "PATH": os.defpath}  # no environment's commands: a reader's kernel may not have them
    run = subprocess.run([sys.executable, "tests/run_notebook.py", str(path.relative_to(ROOT))], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500)  # against one that hangs: on slow servers, two at a time, the longest takes a third of it
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


@by_name
def test_light_and_fresh(path):
    text = path.read_text(encoding="utf-8")
    outputs = [o for kind, _, c in cells(path) if kind == "code" for o in c["outputs"]]
    assert len(text.encode()) < 300_000
    assert not any(o["output_type"] == "error" for o in outputs)
    prose = "".join(source for kind, source, _ in cells(path) if kind == "markdown")
    assert not re.search(r"[\t\r\a\b\f\v]", prose), "a formula lost its backslash"
    assert len(re.findall(r"\\left\b", prose)) == len(re.findall(r"\\right\b", prose)) and prose.count("$$") % 2 == 0
    assert "skip_exec" not in text and not re.search(r"#\|\s*eval:\s*false", text)
    if "default_exp" not in text or len(cells(path)) > 20: assert outputs, "no stored outputs: run it with jupyter nbconvert --execute --inplace"


def test_in_step_and_clean(tmp_path):
    "Export and clean a copy: not a byte changes"
    for name in ("nbs", "minidiff"): shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "shipped", "_quarto.yml", "nbdev.yml"))
    for name in ("settings.ini", "pyproject.toml", "setup.py", "README.md"): shutil.copy(ROOT / name, tmp_path)
    for command in ("nbdev-export", "nbdev-clean"):
        done = subprocess.run([Path(sys.executable).parent / command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    ours = [p for name in ("nbs", "minidiff") for p in (ROOT / name).rglob("*") if p.suffix in (".py", ".ipynb") and ".ipynb_checkpoints" not in str(p)]
    changed = [str(p.relative_to(ROOT)) for p in ours if p.read_bytes() != (tmp_path / p.relative_to(ROOT)).read_bytes()]
    assert not changed, f"{changed}: edit the notebooks, then nbdev-export and nbdev-clean"


def exercises():
    "(chapter, exercise, solution, import cells) of every notebook"
    found = []
    for path in (p for p in NOTEBOOKS if p.stem != "99_checks"):
        rows = cells(path)
        imports = "\n".join(s for kind, s, _ in rows if kind == "code" and not re.match(r"\s*[#%].*(default_exp|%)", s) and only_imports(s))
        for i, (kind, source, _) in enumerate(rows):
            for name in re.findall(r'^check\("([\d.]+)"', source, re.M) if kind == "code" else []:
                found.append((path.stem, name, source, rows[i + 1][1] if i + 1 < len(rows) else "", imports))
    return found


def only_imports(source):
    try: body = ast.parse(source).body
    except SyntaxError: return False
    return bool(body) and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body)


def verdict(imports, answer, check, capsys):
    names = {}
    exec(imports, names)
    exec(answer, names)
    capsys.readouterr()
    exec("from minidiff.checks import check\n" + check, names)
    return capsys.readouterr().out.strip().splitlines()[-1]


def wrong_answers(chapter):
    path = ROOT / "tests" / "wrong" / f"ch{chapter[:2]}.py"
    if not path.exists(): return {}
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WRONG


@pytest.mark.parametrize("exercise", exercises(), ids=lambda e: e[1])
def test_exercise(exercise, capsys):
    chapter, name, check, solution, imports = exercise
    code = re.search(r"<summary>Solution</summary>.*?```python\n(.*?)```", solution, re.S)
    assert code, f"{chapter} {name}: the cell after its check must hold the folded solution"
    assert verdict(imports, code[1], check, capsys).startswith("✓"), "the solution fails its own check"
    wrong = wrong_answers(chapter).get(name, [])
    assert len(wrong) >= 2, f"{chapter} {name}: list two typical wrong answers in tests/wrong"
    for answer in wrong: assert verdict(imports, answer, check, capsys).startswith("✗"), f"this wrong answer passes:\n{answer}"


def test_untouched_stub_is_not_done(capsys):
    def stub(*args): raise NotImplementedError
    assert verdict("", "def stub(*a): raise NotImplementedError", f'check("{exercises()[0][1]}", stub)', capsys).startswith("○")
