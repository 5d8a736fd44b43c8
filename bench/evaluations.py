"""Part 4. FID of the shipped digit model against evaluations of the network, for each sampler; evaluations needed to come within 5% of the best FID.

The judge: the features of minidiff's digit classifier, against the training set; the floor is as many test digits."""
from bench.tools import options, report
import torch
from minidiff import load
from minidiff.data import mnist
from minidiff.metrics import fid
from minidiff.noise import karras
from minidiff.recipes import digits_denoiser
from minidiff.sample import SAMPLERS, last

def main():
    args = options(__doc__, n=1000, calls=[4, 6, 8, 12, 16, 24, 40, 80], samplers=["euler", "ddpm", "heun", "dpmpp_2m", "lms"], sigma_max=80.)
    eyes, denoise = load("classifier"), digits_denoiser(load("digits"))

    @torch.no_grad()
    def look(x): return torch.cat([eyes.features(part) for part in x.split(500)])
    test = mnist(False).images[torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:args.n]]
    real = look(mnist().images)
    floor = fid(real, look(test))
    noise = torch.randn(args.n, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    rows = []
    for name in args.samplers:
        for calls in args.calls:
            steps, calls = (calls // 2, calls // 2 * 2 - 1) if name == "heun" else (calls, calls)  # Heun: two a step, one for the last
            sigmas = karras(steps, .02, args.sigma_max)
            torch.manual_seed(1)
            drawn = torch.cat([last(SAMPLERS[name](denoise, args.sigma_max * part, sigmas)) for part in noise.split(250)])
            rows.append({"sampler": name, "evaluations": calls, "n": args.n, "FID": fid(real, look(drawn)), "floor": floor})
            print(name, calls, f"{rows[-1]['FID']:.2f}", flush=True)
    for row in rows:
        best = min(r["FID"] for r in rows if r["sampler"] == row["sampler"])
        row["within 5% of its best"] = row["FID"] <= 1.05 * best
        row["times the best of all"] = row["FID"] / min(r["FID"] for r in rows)
    report("evaluations", rows)
    for name in args.samplers: print(name, "comes within 5% of its best after", min(r["evaluations"] for r in rows if r["sampler"] == name and r["within 5% of its best"]), "evaluations")


if __name__ == "__main__": main()
