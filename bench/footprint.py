"Part 5. What it costs to have: seconds and memory of an import beyond torch's, installed megabytes and packages beyond torch's"
import importlib.metadata, re, statistics, subprocess, sys
from bench.tools import PEERS, options, report

WHAT = {
    "torch": "import torch", "minidiff": "import torch, minidiff", "minidiff.unet, .sample": "import torch, minidiff.unet, minidiff.sample",
    "diffusers": "import torch, diffusers", "diffusers' UNet and schedulers": "import torch; from diffusers import UNet2DModel, UNet2DConditionModel, DDIMScheduler, DPMSolverMultistepScheduler",
    "diffusers' pipeline": "import torch; from diffusers import StableDiffusionPipeline", "denoising-diffusion-pytorch": "import torch, denoising_diffusion_pytorch", "smalldiffusion": "import torch, smalldiffusion"}
MEASURE = "import time; a = time.perf_counter(); {}; b = time.perf_counter(); from bench.tools import peak_megabytes; print(b - a, peak_megabytes())"


def imported(code):
    "(seconds, MB at the peak) of a fresh process that imports"
    return tuple(map(float, subprocess.run([sys.executable, "-c", MEASURE.format(code)], capture_output=True, text=True, check=True).stdout.split()))


def needs(package, seen=None):
    "The package and all that it requires, extras left out"
    seen = set() if seen is None else seen
    name = re.sub(r"[-_.]+", "-", package).lower()
    try: requirements = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError: return seen
    if name in seen: return seen
    seen.add(name)
    for line in requirements:
        if "extra ==" not in line: needs(re.match(r"[\w.-]+", line)[0], seen)
    return seen


def megabytes(packages):
    "What their files take on the disk; of an editable install, the files of its package folder"
    total = 0
    for name in packages:
        if name == "minidiff":
            import minidiff
            from pathlib import Path
            total += sum(f.stat().st_size for f in Path(minidiff.__file__).parent.rglob("*") if f.is_file() and "__pycache__" not in str(f))
        else: total += sum(f.locate().stat().st_size for f in importlib.metadata.files(name) or [] if f.locate().is_file())
    return total / 1e6


def main():
    args = options(__doc__, rounds=5)
    runs = {name: [] for name in WHAT}
    for n in range(args.rounds + 1):
        for name, code in WHAT.items():
            measured = imported(code)
            if n: runs[name].append(measured)  # the first round fills the disk's cache
    seconds, memory = ({name: statistics.median(r[i] for r in rows) for name, rows in runs.items()} for i in (0, 1))
    torch_needs = needs("torch")
    rows = []
    for name in WHAT:
        package = next((p for p in ("minidiff", *PEERS) if name.startswith(p)), "torch")
        extra = needs(package) - torch_needs
        if name == "diffusers' pipeline": extra |= needs("transformers") - torch_needs
        rows.append({"import": name, "seconds beyond torch": seconds[name] - seconds["torch"], "times torch's": statistics.median(a[0] / b[0] for a, b in zip(runs[name], runs["torch"])),
                     "MB of memory beyond torch": memory[name] - memory["torch"], "packages beyond torch": len(extra), "MB on disk beyond torch": megabytes(extra)})
    report("footprint", rows)


if __name__ == "__main__": main()
