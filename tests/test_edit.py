"Editing: what must hold exactly, whatever the model"
import pytest, torch
import minidiff
from minidiff.edit import average, img2img, inpainted, invert, resampled, turned
from minidiff.latent import seeded_noise, start
from minidiff.noise import karras, spaced
from minidiff.sample import dpmpp_2m, euler, heun, last, pairs

F64 = torch.float64


def gaussian(x, sigma, mean=.4, var=.25):
    "Exact denoiser of N(mean, var)"
    return mean + var/(var + sigma**2)*(x - mean)


@pytest.fixture(scope="module")
def model(): return minidiff.load("scenes")


@pytest.fixture(scope="module")
def told(model):
    cond = model.context(["a red three", "two blue ones"])
    return lambda x, sigma: model.denoise(x, sigma, **cond)


@pytest.mark.parametrize("sampler", [dpmpp_2m, euler, heun])
def test_strength_1_is_text_to_image_and_0_the_picture(model, told, sampler):
    z, noise, sigmas = torch.randn(2, 4, 8, 8), seeded_noise(range(2), model.shape)(), spaced(4)
    assert torch.equal(img2img(told, z, noise, sigmas, 0., sampler), z)
    assert torch.equal(img2img(told, z, noise, sigmas, 1., sampler), last(sampler(told, start(noise, sigmas), sigmas)))
    assert torch.equal(model.decode(img2img(told, z, noise, sigmas, 1.)), model.decode(last(dpmpp_2m(told, start(noise, sigmas), sigmas))))


def test_strength_counts_steps():
    calls = []
    def denoise(x, sigma):
        calls.append(sigma)
        return x
    for strength, n in ((.25, 5), (.5, 10), (.95, 19), (.03, 1), (.02, 0)):
        calls.clear()
        img2img(denoise, torch.zeros(1, 1), torch.zeros(1, 1), spaced(20), strength)
        assert len(calls) == n and (not n or calls[0] == pytest.approx(spaced(20)[20 - n].item()))


def test_a_perfect_denoiser_gives_its_picture_back():
    "If the denoiser knows one picture only, every strength but 0 ends there"
    x, z = torch.randn(2, 3, dtype=F64), torch.randn(2, 3, dtype=F64)
    for strength in (.2, .7, 1.): assert torch.allclose(img2img(lambda y, s: x, z, torch.randn(2, 3, dtype=F64), karras(10), strength), x)


@pytest.mark.parametrize("strength", [-.1, 1.1, float("nan")])
def test_bad_strength(strength):
    with pytest.raises(ValueError, match="strength"): img2img(gaussian, torch.zeros(1, 1), torch.zeros(1, 1), karras(4), strength)


@pytest.mark.parametrize("sampler", [euler, dpmpp_2m, heun, resampled])
def test_the_kept_part_is_exact(model, told, sampler):
    torch.manual_seed(0)
    z, sigmas, mask = torch.randn(2, 4, 8, 8), spaced(4), torch.zeros(1, 1, 8, 8)
    mask[..., 3:] = 1.
    out = last(sampler(inpainted(told, z, mask), z + sigmas[0]*torch.randn_like(z), sigmas))
    assert torch.equal(out[..., :3], z[..., :3]) and not torch.equal(out[..., 3:], z[..., 3:])
    assert (out[..., 3:] - z[..., 3:]).abs().mean() > .1


def test_masks_of_ones_and_zeros(told):
    x, z = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(inpainted(told, z, torch.ones(2, 1, 8, 8))(x, 1.), told(x, 1.))
        assert torch.equal(inpainted(told, z, torch.zeros(1, 1, 8, 8))(x, 1.), z)


def test_the_kept_part_carries_the_right_noise():
    "Half way down, x in the kept part is the picture plus noise of that very level"
    torch.manual_seed(0)
    z, sigmas, mask = torch.randn(2000, 2, dtype=F64), karras(10, .1, 10.), torch.tensor([0., 1.], dtype=F64)
    for sampler in (euler, resampled):
        for (s, s2), x in zip(pairs(sigmas), sampler(inpainted(gaussian, z, mask), z + sigmas[0]*torch.randn_like(z), sigmas)):
            if s2: assert (x - z)[:, 0].std() == pytest.approx(s2, rel=.08)


def test_taken_once_it_is_euler():
    x, sigmas = 10*torch.randn(4, 3, dtype=F64), karras(8, .1, 10.)
    for a, b in zip(resampled(gaussian, x, sigmas, times=1), euler(gaussian, x, sigmas)): assert torch.allclose(a, b)


def test_resampling_halves_what_the_first_guess_got_wrong():
    "Two numbers that are always equal, one of them given: the other follows the more, the oftener each step is taken"
    def twins(x, sigma): return (x.mean(-1, keepdim=True)/(1 + sigma**2/2)).expand_as(x)   # (z, z) with z from N(0,1)
    torch.manual_seed(0)
    z, mask, sigmas = torch.randn(4000, 1, dtype=F64).expand(-1, 2), torch.tensor([0., 1.], dtype=F64), karras(10, .05, 10.)
    gap = {}
    for times in (1, 4, 16):
        x = last(resampled(inpainted(twins, z, mask), z + sigmas[0]*torch.randn_like(z), sigmas, times=times))
        gap[times] = (x[:, 1] - z[:, 1]).square().mean().item()
    assert gap[1] > gap[4] > gap[16]


def test_round_trip_error_falls_with_the_steps():
    "First order: twice the steps, half the error"
    x = .4 + .5*torch.randn(500, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    def trip(n):
        sigmas = karras(n, .002, 20.)
        *_, before, _ = euler(gaussian, invert(gaussian, x, sigmas), sigmas)
        return (before - x).abs().mean().item()
    errors = [trip(n) for n in (50, 100, 200, 400)]
    for coarse, fine in zip(errors, errors[1:]): assert 1.8 < coarse/fine < 2.2


def test_inversion_finds_the_noise():
    "Of Gaussian data the exact walk up is known"
    x = torch.tensor([[-.5], [.4], [1.2]], dtype=F64)
    sigmas = karras(4000, 1e-3, 20.)
    want = .4 + (x - .4)*((.25 + 20.**2)/(.25 + 1e-6))**.5
    assert torch.allclose(invert(gaussian, x, sigmas), want, rtol=5e-3)


def test_inversion_of_the_shipped_model(model, told):
    z = last(dpmpp_2m(told, start(seeded_noise(range(2), model.shape)(), spaced(10)), spaced(10)))
    errors = [(last(euler(told, invert(told, z, spaced(n)), spaced(n))) - z).square().mean().sqrt().item() for n in (5, 10, 20)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < .25


def test_turned():
    seen = []
    def denoise(x, sigma):
        seen.append(x)
        return x + torch.arange(16.).view(1, 1, 4, 4)
    x = torch.randn(2, 1, 4, 4)
    for quarters in range(4):
        out = turned(denoise, quarters)(x, 1.)
        assert torch.equal(seen[-1], x.rot90(quarters, (2, 3)))
        assert torch.allclose(out - x, torch.arange(16.).view(1, 1, 4, 4).rot90(-quarters, (2, 3)).expand_as(x), atol=1e-6)
    assert torch.equal(turned(lambda x, s: x, 2)(x, 1.), x)


def test_average_has_the_mean_score():
    x = torch.randn(5, 3, dtype=F64)
    both = average(lambda x, s: gaussian(x, s, 1.), lambda x, s: gaussian(x, s, -3.))
    assert torch.allclose(both(x, .7), (gaussian(x, .7, 1.) + gaussian(x, .7, -3.))/2)
    assert torch.equal(average(gaussian)(x, .7), gaussian(x, .7))


def test_masks_of_other_types_and_half_latents():
    z, mask = torch.randn(2, 4, 8, 8), torch.rand(1, 1, 8, 8) > .5
    want = inpainted(lambda x, s: x / 2, z, mask.float())(z + 1, 1.)
    for other in (mask, mask.long()): assert torch.equal(inpainted(lambda x, s: x / 2, z, other)(z + 1, 1.), want)
    assert invert(lambda x, s: x.float() / 2, z.half(), karras(5)).dtype == torch.float16


def test_a_step_is_taken_at_least_once():
    with pytest.raises(ValueError, match="times 0"): next(resampled(lambda x, s: x, torch.zeros(1, 1), karras(5), 0))
