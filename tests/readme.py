"README.md is nbs/index.ipynb: python tests/readme.py writes it, a test compares them."
import json, re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def readme():
    "The overview notebook as Markdown, its links made relative to the project's root"
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    source = lambda c: "".join(c["source"])
    parts = [source(c) if c["cell_type"] == "markdown" else f"```python\n{source(c)}\n```" for c in cells]
    return re.sub(r"\]\((?!https?:|#)(?!\.\./)", "](nbs/", "\n\n".join(parts)).replace("](../", "](") + "\n"


if __name__ == "__main__": (ROOT / "README.md").write_text(readme(), encoding="utf-8")
