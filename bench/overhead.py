"Part 1. What a sampler costs beside the network: microseconds a step with a network that returns its input"
import time
from bench.tools import compare, options, report
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from denoising_diffusion_pytorch import GaussianDiffusion
from smalldiffusion import ModelMixin, ScheduleDDPM, samples
from minidiff.noise import SD, spaced
from minidiff.sample import dpmpp_2m, euler, heun, last

STEPS = 50


def timed(run):
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def ours(sampler, x, **knobs):
    sigmas = spaced(STEPS, SD)
    return lambda: timed(lambda: last(sampler(lambda x, sigma: x, x, sigmas, **knobs)))


def diffusers(cls, x, **config):
    scheduler = cls(beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012, **config)

    @torch.no_grad()
    def loop():
        y = x
        for t in scheduler.timesteps: y = scheduler.step(scheduler.scale_model_input(y, t), t, y, return_dict=False)[0]

    def run():
        scheduler.set_timesteps(STEPS)  # not timed
        return timed(loop)
    return run


class Trivial(torch.nn.Module, ModelMixin):
    "What smalldiffusion and denoising-diffusion-pytorch ask of a network, and nothing more"
    channels, out_dim, self_condition, input_dims = 1, 1, False, (1, 28, 28)

    def forward(self, x, *args, **kwargs): return x


def lucidrains(x, steps, eta=0.):
    diffusion = GaussianDiffusion(Trivial(), image_size=28, sampling_timesteps=steps, ddim_sampling_eta=eta)
    def run():
        seconds = timed(lambda: diffusion.sample(len(x)))
        return seconds * STEPS / steps
    return run


def small(x, **knobs):
    from accelerate import Accelerator
    model, sigmas, accelerator = Trivial(), ScheduleDDPM().sample_sigmas(STEPS), Accelerator(cpu=True)
    def loop():
        for _ in samples(model, sigmas, xt=x, accelerator=accelerator, **knobs): pass
    return lambda: timed(loop)


def rivals(x):
    "Each of our samplers, first, and what plays its part elsewhere"
    return {
        "euler": {"minidiff euler": ours(euler, x), "diffusers Euler": diffusers(EulerDiscreteScheduler, x), "diffusers DDIM": diffusers(DDIMScheduler, x, clip_sample=False),
                  "smalldiffusion DDIM": small(x, gam=1.), "denoising-diffusion-pytorch DDIM": lucidrains(x, STEPS)},
        "ddpm": {"minidiff euler, eta 1": ours(euler, x, eta=1.), "diffusers DDPM": diffusers(DDPMScheduler, x, clip_sample=False), "diffusers Euler ancestral": diffusers(EulerAncestralDiscreteScheduler, x),
                 "smalldiffusion DDPM": small(x, gam=1., mu=.5), "denoising-diffusion-pytorch DDIM, eta 1": lucidrains(x, STEPS, 1.)},
        "heun": {"minidiff heun": ours(heun, x), "diffusers Heun": diffusers(HeunDiscreteScheduler, x)},
        "dpmpp_2m": {"minidiff dpmpp_2m": ours(dpmpp_2m, x), "diffusers DPM++(2M)": diffusers(DPMSolverMultistepScheduler, x),
                     "smalldiffusion accelerated": small(x, gam=2.)}}


def main():
    args = options(__doc__, rounds=15)
    rows = []
    for batch in (1, 64):
        for group, runs in rivals(torch.randn(batch, 1, 28, 28)).items():
            for name, (seconds, ratio) in compare(runs, args.rounds).items():
                rows.append({"sampler": name, "group": group, "images": batch, "us a step": 1e6 * seconds / STEPS, "times ours": ratio})
    report("overhead", rows)


if __name__ == "__main__": main()
