"The VAE against diffusers: the same keys, the same shapes, the same numbers"
import copy, weakref
from dataclasses import replace

import pytest
import torch

from minidiff.vae import SD_VAE, SDXL_VAE, VAE, Identity, VAEConfig, draw, kl, psnr, vae_loss

diffusers = pytest.importorskip("diffusers")
COURSE = VAEConfig(channels=(16, 32, 64, 128), layers=1, groups=16)
SMALL = {"course": COURSE, "grey": VAEConfig(in_channels=1, channels=(32, 64), layers=2, latent=2, scale=0.7), "one level": VAEConfig(channels=(32,), latent=6)}


def twin(c):
    "diffusers' network of the same config"
    n = len(c.channels)
    return diffusers.AutoencoderKL(
        in_channels=c.in_channels, out_channels=c.in_channels, down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=c.channels, layers_per_block=c.layers, latent_channels=c.latent, norm_num_groups=c.groups, scaling_factor=c.scale)


def shapes(module):
    return {k: tuple(v.shape) for k, v in module.state_dict().items()}


@pytest.mark.parametrize("config", [SD_VAE, SDXL_VAE])
def test_published_shapes(config):
    with torch.device("meta"): ours, theirs = VAE(config), twin(config)
    assert shapes(ours) == shapes(theirs)
    assert len(shapes(ours)) == 248
    assert sum(p.numel() for p in ours.parameters()) == 83_653_863


def pair(c):
    torch.manual_seed(0)
    theirs = twin(c)
    for p in theirs.parameters(): p.data.add_(0.1 * torch.randn_like(p))
    ours = VAE(c).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs.double().eval()


def error(a, b):
    assert a.shape == b.shape
    return (a - b).norm() / b.norm()


@pytest.mark.parametrize("name", SMALL)
def test_numbers(name):
    c = SMALL[name]
    ours, theirs = pair(c)
    x = torch.randn(2, c.in_channels, 32, 48).double()
    with torch.no_grad():
        mean, logvar = ours.posterior(x)
        posterior = theirs.encode(x).latent_dist
        assert error(mean, posterior.mean) < 1e-12
        assert error(logvar, posterior.logvar) < 1e-12
        z, noise = ours.encode(x), torch.randn_like(mean)
        assert error(z, posterior.mode() * c.scale) < 1e-12
        assert error(ours.encode(x, noise=noise), (posterior.mean + posterior.std * noise) * c.scale) < 1e-12
        assert error(ours.decode(z), theirs.decode(z / c.scale).sample) < 1e-12
        assert error(kl(mean, logvar), posterior.kl()) < 1e-12


def test_the_comparison_sees_a_wrong_eps():
    ours, theirs = pair(COURSE)
    for m in ours.modules():
        if isinstance(m, torch.nn.GroupNorm): m.eps = 1e-5
    x = torch.randn(2, 3, 32, 32).double()
    with torch.no_grad(): assert error(ours.posterior(x)[0], theirs.encode(x).latent_dist.mean) > 1e-8


def test_course_model():
    vae = VAE(COURSE)
    assert round(sum(p.numel() for p in vae.parameters()) / 1e6, 2) == 2.73
    assert COURSE.factor == 8 and vae.encode(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 8, 8)


def test_kl_is_what_monte_carlo_says():
    torch.manual_seed(0)
    mean, logvar = torch.randn(1, 3, 2, 2).double(), torch.randn(1, 3, 2, 2).double()
    z = draw(mean.expand(200_000, -1, -1, -1), logvar)
    q = -(z - mean).square() / logvar.exp() - logvar
    sampled = ((q + z.square()) / 2).flatten(1).sum(1)
    assert abs(sampled.mean() - kl(mean, logvar)) < 4 * sampled.std() / 200_000**0.5
    assert kl(torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)).tolist() == [0, 0]


def test_loss_is_the_scaled_elbo():
    ours, _ = pair(COURSE)
    x, s = torch.randn(2, 3, 32, 32).double().clamp(-1, 1), 0.3
    noise = torch.randn(2, 4, 4, 4).double()
    x_hat, mean, logvar = ours(x, noise)
    nll = -torch.distributions.Normal(x_hat, s).log_prob(x).flatten(1).sum(1) + kl(mean, logvar)
    constant = 0.5 * torch.log(torch.tensor(2 * torch.pi * s**2)).double()
    assert torch.allclose(vae_loss(ours, x, 2 * s**2, noise), 2 * s**2 * (nll / x[0].numel() - constant))


def test_psnr():
    a = torch.zeros(2, 3, 8, 8)
    b = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 2.)])
    assert torch.allclose(psnr(a, b), torch.tensor([20., 0.]), atol=1e-5)


def test_float64_bf16_channels_last_compile_and_gradients():
    torch.manual_seed(0)
    vae, x = VAE(COURSE), torch.randn(2, 3, 32, 32)
    noise = torch.randn(2, 4, 4, 4)
    full = vae(x, noise)[0]
    last = copy.deepcopy(vae).to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), noise)[0]
    assert (last - full).abs().max() < 1e-4
    assert (copy.deepcopy(vae).double()(x.double(), noise.double())[0] - full).abs().max() < 1e-4
    with torch.autocast("cpu", torch.bfloat16): half = vae(x, noise)[0]
    assert (half.float() - full).norm() / full.norm() < 0.05
    assert (torch.compile(vae, backend="aot_eager", fullgraph=True)(x, noise)[0] - full).abs().max() < 1e-5
    vae_loss(vae, x, 1e-3).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())


def test_scale_can_be_measured_later():
    vae, x = VAE(COURSE), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        raw, before = vae.posterior(x)[0], vae.decode(vae.encode(x))
        vae.config = replace(vae.config, scale=1 / raw.std().item())
        assert abs(vae.encode(x).std() - 1) < 1e-5
        assert (vae.decode(vae.encode(x)) - before).abs().max() < 1e-4


def test_identity_codec():
    x, codec = torch.randn(2, 1, 28, 28), Identity()
    assert codec.encode(x, sample=True) is x and codec.decode(x) is x


def test_decoding_keeps_no_early_states():
    vae, seen = VAE(COURSE), {}
    vae.decoder.mid_block.register_forward_hook(lambda m, x, y: seen.update(y=weakref.ref(y)))
    vae.decoder.up_blocks[1].register_forward_hook(lambda m, x, y: seen.update(kept=seen["y"]() is not None))
    with torch.no_grad(): vae.decode(torch.randn(1, 4, 4, 4))
    assert seen["kept"] is False


@pytest.mark.parametrize("bad", [torch.zeros(2, 1, 32, 32), torch.zeros(3, 32, 32), torch.zeros(2, 3, 32, 28)])
def test_bad_images_are_refused(bad):
    with pytest.raises(ValueError, match="expected|multiples"): VAE(COURSE).encode(bad)


def test_bad_latents_and_configs_are_refused():
    with pytest.raises(ValueError, match="expected"): VAE(COURSE).decode(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="20"): replace(COURSE, channels=(16, 20))
    with pytest.raises(ValueError, match="scale"): replace(COURSE, scale=0.)
    with pytest.raises(ValueError, match="channels"): replace(COURSE, channels=())
