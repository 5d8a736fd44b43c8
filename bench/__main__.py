"The whole benchmark, or the parts that are named: python -m bench [overhead throughput quality evaluations footprint pictures]"
import subprocess, sys

PARTS = {  # name -> its arguments; the first four take minutes, quality takes hours
    "overhead": ["--threads", "1"], "footprint": [], "throughput": [], "pictures": [], "evaluations": [], "quality": []}

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(PARTS)
    if strange := [name for name in wanted if name not in PARTS]: sys.exit(f"bench has no part {strange[0]!r}: choose from {', '.join(PARTS)}")
    for name in wanted: subprocess.run([sys.executable, "-m", f"bench.{name}", *PARTS[name]], check=True)
