"What every part of the benchmark shares. Import it before torch: it pins the threads"
import argparse, csv, importlib.metadata, os, platform, statistics, sys, time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PEERS = ("diffusers", "denoising-diffusion-pytorch", "smalldiffusion")
started = os.getloadavg()[0]


def pin():
    "`--threads N` of the command line (default: 2, or 1 on one core), set before torch reads the environment"
    known = argparse.ArgumentParser(add_help=False)
    known.add_argument("--threads", type=int, default=min(2, os.cpu_count()))
    threads = known.parse_known_args()[0].threads
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    return threads


THREADS = pin()
import minidiff, torch

torch.set_num_threads(THREADS)


def options(about, **defaults):
    "The part's own options, `--name value`, beside --threads; the type is that of the default, a list takes several"
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--threads", type=int, default=THREADS, help="of torch (default %(default)s)")
    for name, value in defaults.items():
        kind = dict(nargs="*", type=type(value[0])) if isinstance(value, list) else dict(action="store_true") if value is False else dict(type=type(value))
        parser.add_argument(f"--{name}", default=value, **kind, help=f"default {value}")
    return parser.parse_args()


def version(package):
    if package == "minidiff": return f"minidiff {minidiff.__version__}"  # where it runs uninstalled, too
    try: return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError: return f"{package} missing"


def compare(runs, rounds=9):
    "Time functions by turns: name -> (median seconds, median over rounds of its time / the first one's). A run may return its own seconds"
    times = {name: [] for name in runs}
    for n in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            own = run()
            if n: times[name].append(own or time.perf_counter() - began)  # the first round warms up
    first = next(iter(times.values()))
    return {name: (statistics.median(t), statistics.median(b / a for a, b in zip(first, t))) for name, t in times.items()}


def peak_megabytes():
    "MB of memory at this process's peak. Linux's ru_maxrss would be at least the parent's"
    try: return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def hardware():
    if not torch.cuda.is_available(): return f"{cpu_name()}, {THREADS} of {os.cpu_count()} threads"
    return f"{torch.cuda.get_device_name()}, {cpu_name()}"


def cpu_name():
    try: return next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration): return platform.processor()


def report(part, rows, add=False):
    "Print rows (dicts with the same keys) as a table and write bench/results/PART.csv; add=True: below what is there"
    where = f"{hardware()}; load {started:.1f} before, {os.getloadavg()[0]:.1f} after; {', '.join(map(version, ('minidiff', 'torch', *PEERS)))}"
    rows = [{**row, "where": where} for row in rows]
    shown = [[f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items() if k != "where"] for row in rows]
    heads = [k for k in rows[0] if k != "where"]
    widths = [max(map(len, column)) for column in zip(heads, *shown)]
    print(f"\n{part}: {where}")
    for line in (heads, *shown): print("  ".join(f"{text:<{w}}" if i == 0 else f"{text:>{w}}" for i, (text, w) in enumerate(zip(line, widths))))
    sys.stdout.flush()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{part}.csv"
    fresh = not (add and path.exists())
    with open(path, "w" if fresh else "a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if fresh: writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
