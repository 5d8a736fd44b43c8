"Guidance against algebra, exact Gaussians and diffusers' guiders"
import math
import pytest, torch
from minidiff.denoise import expand
from minidiff.guide import cfg, extrapolate, rescaled, projected, interval, autoguided, classifier_guided
from minidiff.noise import karras
from minidiff.sample import euler, heun, last

F64 = torch.float64


def toy(x, sigma, std):
    "Exact denoiser of N(0, std^2) where std is told for each example: std [B,1]"
    s = expand(sigma, x)
    return x*std**2/(std**2 + s**2)


COND, UNCOND = dict(std=torch.ones(1, 1, dtype=F64)), dict(std=torch.full((1, 1), 2**.5, dtype=F64))
def conds(n): return dict(std=COND["std"].repeat(n, 1)), UNCOND


@pytest.mark.parametrize("scale", [0., 2., 3., 5.])
def test_ode_variance_of_guided_gaussians(scale):
    "p = N(0,2), p(.|c) = N(0,1): the guided ODE ends at variance 2^(1-scale), not at the tilted density's 2/(scale+1)"
    sigmas = karras(600, 1e-4, 2000., rho=12)
    x = torch.full((1, 1), sigmas[0].item(), dtype=F64)   # a start one standard deviation out
    out = last(heun(cfg(toy, *conds(1), scale), x, sigmas)).item()
    assert out**2 == pytest.approx(2**(1 - scale), rel=2e-3)


@pytest.mark.parametrize("scale", [2., 3.])
def test_sde_variance_of_guided_gaussians(scale):
    "The same with DDPM's noise: (2 - 2^(2-2*scale))/(2*scale - 1); the steps are linear in x, so variances can be carried exactly"
    guided, one = cfg(toy, *conds(1), scale), torch.ones(1, 1, dtype=F64)
    def variance(n):
        sigmas = karras(n, 1e-4, 2000., rho=12).double().tolist()
        var = sigmas[0]**2
        for s, s2 in zip(sigmas, sigmas[1:]):
            x = next(iter(euler(guided, one, [s, s2, 0.] if s2 else [s, 0.], eta=1., noise=torch.zeros_like)))
            var = x.item()**2*var + s2**2*(1 - (s2/s)**2)
        return var
    extrapolated = 2*variance(2000) - variance(1000)     # the first-order error cancels
    assert extrapolated == pytest.approx((2 - 2**(2 - 2*scale))/(2*scale - 1), rel=1e-3)


def test_one_batched_call_and_scale_1():
    calls = []
    def denoise(x, sigma, std):
        calls.append((len(x), sigma))
        return toy(x, sigma, std)
    x = torch.randn(3, 4, dtype=F64)
    cfg(denoise, *conds(3), 2.)(x, 1.5)
    cfg(denoise, *conds(3), 1)(x, 1.5)
    cfg(denoise, *conds(3), 2.)(x, torch.tensor([1., 2., 3.]))
    assert [n for n, _ in calls] == [6, 3, 6]
    assert calls[2][1].tolist() == [1., 2., 3., 1., 2., 3.]


def test_extrapolation_is_affine_in_every_space():
    "Guiding eps, v or x0 is the same thing"
    c, u, x = torch.randn(3, 2, 1, 4, 4, dtype=F64)
    s, scale = 1.7, 7.5
    for to, fro in [(lambda d: (x - d)/s, lambda e: x - s*e), (lambda d: ((1 + s**2)*d - x)/(-s), lambda y: (x - s*y)/(1 + s**2))]:
        other = fro(to(u) + scale*(to(c) - to(u)))
        assert (other - extrapolate(c, u, scale)).abs().max() < 1e-12


def test_scale_one_each():
    x = torch.randn(3, 4, dtype=F64)
    together = cfg(toy, *conds(3), torch.tensor([0., 1., 4.]))(x, .8)
    for i, scale in enumerate([0., 1., 4.]):
        assert (together[i] - cfg(toy, *conds(1), scale)(x[i:i+1], .8)[0]).abs().max() < 1e-12


def test_keys_must_agree():
    with pytest.raises(ValueError, match="ctx.*vec"): cfg(toy, dict(ctx=torch.ones(1)), dict(vec=torch.ones(1)), 2.)


def test_rescale_is_diffusers():
    from diffusers.guiders.guider_utils import rescale_noise_cfg
    c, u = torch.randn(2, 5, 3, 8, 8, dtype=F64)
    for phi in (0., .3, .7, 1.):
        want = rescale_noise_cfg(extrapolate(c, u, 6.), c, phi)
        assert (rescaled(c, u, 6., phi) - want).abs().max() < 1e-12
    assert (rescaled(c, u, 6., 1.).flatten(1).std(1) - c.flatten(1).std(1)).abs().max() < 1e-12


def test_apg_is_diffusers():
    from diffusers.guiders.adaptive_projected_guidance import normalized_guidance
    c, u = torch.randn(2, 5, 3, 8, 8, dtype=F64)
    for along in (0., .4, 1.):
        want = normalized_guidance(c, u, 5., eta=along, use_original_formulation=True)
        assert (projected(c, u, 6., along) - want).abs().max() < 1e-12
    assert (projected(c, u, 6., 1.) - extrapolate(c, u, 6.)).abs().max() < 1e-12


def test_interval_guides_inside_only():
    d = interval(lambda x, s: "guided", lambda x, s: "plain", .5, 2.)
    assert [d(None, s) for s in (.5, .51, 2., 2.01)] == ["plain", "guided", "guided", "plain"]


def test_autoguidance():
    x = torch.randn(3, 4, dtype=F64)
    good, bad = (lambda x, s: toy(x, s, 1.)), (lambda x, s: toy(x, s, 2.))
    assert torch.equal(autoguided(good, bad, 1)(x, 1.), good(x, 1.))
    assert (autoguided(good, bad, 3.)(x, 1.) - (3*good(x, 1.) - 2*bad(x, 1.))).abs().max() < 1e-12


def test_classifier_guidance_is_bayes_rule():
    "Data N(0,1), y = x + N(0, r^2): prior denoiser + sigma^2 * grad log p(y|x_sigma) is the posterior's denoiser"
    y, r, s = .7, .5, 1.3
    prior = lambda x, sigma: x/(1 + sigma**2)
    def log_prob(x, sigma):     # y | x_sigma is Gaussian
        mean, var = x/(1 + sigma**2), sigma**2/(1 + sigma**2) + r**2
        return (-(y - mean)**2/(2*var)).flatten(1).sum(1)
    m, v = y/(1 + r**2), r**2/(1 + r**2)
    x = torch.linspace(-3, 3, 7, dtype=F64)[:, None]
    want = (x*v + m*s**2)/(v + s**2)
    with torch.no_grad(): got = classifier_guided(prior, log_prob, 1.)(x, s)
    assert (got - want).abs().max() < 1e-12
    assert last(euler(classifier_guided(prior, log_prob, 1.), 80*torch.ones(2, 1, dtype=F64), karras(5))).isfinite().all()


def test_one_sigma_in_a_tensor():
    x, sigma = torch.randn(4, 1, 2, 2), torch.tensor([2.])
    denoise = lambda x, sigma, vec: x * expand(sigma, x) + vec[:, :, None, None]
    cond, uncond = dict(vec=torch.ones(4, 1)), dict(vec=torch.zeros(4, 1))
    assert torch.equal(cfg(denoise, cond, uncond, 4.)(x, sigma), cfg(denoise, cond, uncond, 4.)(x, 2.))


def test_a_condition_that_is_none():
    cond, uncond = dict(ctx=torch.ones(2, 1), vec=None), dict(ctx=torch.zeros(2, 1), vec=None)
    assert torch.equal(cfg(lambda x, sigma, ctx, vec=None: ctx, cond, uncond, 3.)(torch.zeros(2, 1), 1.), torch.full((2, 1), 3.))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_guidance_in_half_precision(dtype):
    c, u = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for combine in (extrapolate, rescaled, projected):
        half = combine(c.to(dtype), u.to(dtype), 3.)
        assert half.dtype == dtype and (half.float() - combine(c, u, 3.)).abs().max() < .2
