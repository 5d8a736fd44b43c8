"""Stable Diffusion 1.5's UNet at full size against diffusers, sharing one set of random weights: too slow and large for `make test`.

    python tests/full_size.py            # 16x16 latents, batch 2, float32

It takes about a minute on one core, 5 to 10 seconds of it in either UNet. Measured in three runs: relative differences of 9.9e-7 to
2.1e-6, peak memory 4.3 to 4.5 GiB. It prints all of these, and fails above 5e-6. No other test runs it: run it when `unet.py` changes.
"""
import resource, time
import torch
from diffusers import UNet2DConditionModel
from minidiff.unet import SD15, UNet


@torch.no_grad()
def main(size=16, batch=2):
    torch.manual_seed(0)
    with torch.device("meta"): theirs, ours = UNet2DConditionModel(cross_attention_dim=768), UNet(SD15)
    state = {k: torch.randn(v.shape) * (v[0].numel() ** -.5 if v.ndim > 1 else .1) + (1. if v.ndim == 1 and k.endswith("weight") else 0.) for k, v in ours.state_dict().items()}
    for net in (theirs, ours): net.load_state_dict(state, assign=True)
    x, t, ctx = torch.randn(batch, 4, size, size), torch.tensor([981., 201.])[:batch], torch.randn(batch, 77, 768)
    out = {}
    for name, call in dict(diffusers=lambda: theirs.eval()(x, t, encoder_hidden_states=ctx).sample, minidiff=lambda: ours.eval()(x, t, ctx)).items():
        begun = time.perf_counter()
        out[name] = call()
        print(f"{name:10}{time.perf_counter() - begun:6.1f} s, std {out[name].std():.3f}")
    error = ((out["minidiff"] - out["diffusers"]).norm() / out["diffusers"].norm()).item()
    print(f"{sum(v.numel() for v in state.values()):,} parameters, relative difference {error:.1e}, peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    assert error <= 5e-6


if __name__ == "__main__": main()
