"""Part 6. Text to image: seconds and memory for one picture and for 64, ours against diffusers' pipeline on the folder that `minidiff save` writes.

Same weights, 20 steps of DPM++(2M), guidance 4, 64x64. The GPU's part is in bench.gpu."""
import subprocess, sys, tempfile
from bench.tools import THREADS, compare, options, peak_megabytes, report
import torch

CAPTIONS = ["a red three", "two white zeros", "a thick green five on a navy background", "a small yellow one and a large magenta eight"]
STEPS, SCALE = 20, 4.


def captions(n): return [CAPTIONS[i % len(CAPTIONS)] for i in range(n)]


def ours(device="cpu"):
    "captions -> pictures [B,3,64,64], by minidiff"
    import minidiff
    model = minidiff.load(device=device)
    return lambda texts: model.images(texts, steps=STEPS, scale=SCALE)


def theirs(folder, device="cpu"):
    "captions -> pictures, by diffusers' StableDiffusionPipeline on the saved folder"
    from diffusers import StableDiffusionPipeline
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).to(device)
    pipe.set_progress_bar_config(disable=True)
    return lambda texts: pipe(texts, num_inference_steps=STEPS, guidance_scale=SCALE, height=64, width=64, output_type="pt").images


def saved():
    "A folder with our shipped model as diffusers reads it"
    import minidiff
    from minidiff.pipeline import save_diffusers
    folder = tempfile.mkdtemp()
    save_diffusers(minidiff.load(), folder)
    return folder


def memory(who, folder, n):
    "MB at the peak of a fresh process that loads one of the two and draws n pictures"
    code = f"from bench.pictures import *; draw = ours() if {who == 'minidiff'} else theirs({folder!r}); draw(captions({n})); print(peak_megabytes())"
    done = subprocess.run([sys.executable, "-c", code, "--threads", str(THREADS)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main():
    args = options(__doc__, rounds=5, images=[1, 64])
    folder, rows = saved(), []
    draws = {"minidiff": ours(), "diffusers": theirs(folder)}
    for n in args.images:
        def drawing(draw): return lambda: draw(captions(n)) is None
        for who, (seconds, ratio) in compare({who: drawing(draw) for who, draw in draws.items()}, args.rounds).items():
            rows.append({"who": who, "images": n, "seconds": seconds, "time / ours": ratio, "MB at the peak, whole process": memory(who, folder, n)})
    report("pictures", rows)


if __name__ == "__main__": main()
