"Versions, budgets, README, wheel, import time's causes."
import ast, configparser, json, os, re, subprocess, sys, venv, zipfile, sysconfig, io, tokenize
from pathlib import Path
import pytest

ROOT = Path(__file__).parents[1]


def code_lines(path):
    "Lines that hold a token which is neither comment nor docstring; the longest function"
    text = path.read_text(encoding="utf-8")
    tree, doc = ast.parse(text), set()
    for n in ast.walk(tree):
        if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef)) and n.body and isinstance(n.body[0], ast.Expr) and isinstance(getattr(n.body[0], "value", None), ast.Constant):
            doc |= set(range(n.body[0].lineno, n.body[0].end_lineno + 1))
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = {i for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in skip for i in range(t.start[0], t.end[0] + 1)} - doc
    return len(lines)


def test_budgets():
    "Small modules stay readable; the table is printed with -s"
    sizes = {p.stem: code_lines(p) for p in sorted((ROOT / "minidiff").glob("*.py")) if p.stem not in ("_modidx", "__init__", "checks")}
    print("\n" + "\n".join(f"{name:12s} {n:4d}" for name, n in sizes.items()))
    assert max(sizes.values()) <= 150, sizes


def test_version():
    import minidiff
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    assert minidiff.__version__ == settings["DEFAULT"]["version"]


def test_shipped_weights_are_light_and_carded():
    from minidiff.pipeline import BUILD, SHIPPED, weights_file
    files = [weights_file(name) for name in BUILD]
    assert sum(f.stat().st_size for f in files) <= 24_000_000
    for f in [*files, *(ROOT / "nbs" / "models").glob("*.safetensors")]: assert len(f.with_suffix(".md").read_text(encoding="utf-8")) > 200


def test_weights_of_chapters_14_and_18_are_the_recorded_ones():
    from minidiff.weights import sha256
    folder = ROOT / "nbs" / "models"
    assert json.loads((folder / "sha256.json").read_text()) == {p.name: sha256(p) for p in folder.glob("*.safetensors")}


def test_public_names_are_documented():
    for path in (ROOT / "minidiff").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bare = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_") and not ast.get_docstring(n)]
        assert not bare, f"{path.name}: {bare}"


def test_import_is_light():
    "What a bare import must not pull in"
    code = "import sys, minidiff; print([m for m in ('matplotlib', 'torchvision', 'diffusers', 'transformers', 'IPython') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_readme_is_the_overview_notebook():
    from readme import readme
    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme(), "run: python tests/readme.py"


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links and not [l for l in links if not (ROOT / l).exists()]


def readme_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)


def test_readme_python(tmp_path):
    blocks = readme_blocks("python")
    assert blocks
    for block in blocks: subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True, timeout=120)


def test_readme_commands(tmp_path):
    "Every `minidiff` command of the README that needs no training first runs, from an empty folder"
    commands = [line for block in readme_blocks("sh") for line in block.splitlines() if line.startswith(("minidiff sample", "minidiff save", "minidiff --version")) and "--weights" not in line]
    assert commands
    env = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for command in commands: subprocess.run(command, shell=True, cwd=tmp_path, env=env, check=True, timeout=120)


def test_wheel_works_elsewhere(tmp_path):
    "Build a wheel, install it in a new environment outside the repository, draw a picture there"
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT], check=True)
    wheel, = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(n.endswith("unet.safetensors") for n in names) and any(n.endswith("merges.txt") for n in names)
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True).stdout.strip())
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    (site / "torch_is_there.pth").write_text(sysconfig.get_path("purelib"))  # its dependencies, without downloading them again
    done = subprocess.run([python.parent / "minidiff", "sample", "a red three", "-o", "three.png"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    where = subprocess.run([python, "-c", "import minidiff; print(minidiff.__file__)"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert str(home) in where and (tmp_path / "three.png").stat().st_size > 1000
