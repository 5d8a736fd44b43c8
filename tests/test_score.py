"Mixtures are exact, Langevin dynamics samples them"
import math

import pytest, torch

from minidiff.score import Mixture, annealed_langevin, langevin

THREE = Mixture([[-3., -2.], [3., -2.], [0., 3.5]], [0.6, 0.3, 0.1], std=0.4)


@pytest.mark.parametrize("sigma", [0., 0.3, 5.])
def test_score_is_the_gradient_of_the_log_density(sigma):
    x = (3 * torch.randn(50, 2, generator=torch.manual_seed(0))).double().requires_grad_()
    gradient, = torch.autograd.grad(THREE.log_prob(x, sigma).sum(), x)
    assert torch.allclose(THREE.score(x, sigma), gradient, atol=1e-9)


def test_density_sums_to_one():
    side = torch.linspace(-20, 20, 401, dtype=torch.float64)
    plane = torch.cartesian_prod(side, side)
    for sigma in (0., 2.): assert abs(THREE.log_prob(plane, sigma).exp().sum() * 0.1**2 - 1) < 1e-3


def test_denoise_is_the_posterior_mean():
    clean = THREE.sample(400_000, generator=torch.manual_seed(1)).double()
    x = torch.tensor([[0., 0.], [2., -1.], [-1., 2.]]).double()
    for sigma in (1., 3.):
        w = (-torch.cdist(x, clean).square() / (2 * sigma**2)).softmax(1)
        assert torch.allclose(THREE.denoise(x, sigma), w @ clean, atol=0.03)
        assert torch.allclose(THREE.score(x, sigma), (THREE.denoise(x, sigma) - x) / sigma**2, atol=1e-9)


def test_a_level_for_each_point_and_any_shape():
    images = Mixture(torch.randn(4, 1, 6, 6, generator=torch.manual_seed(0)), torch.full((4,), 0.25), std=0.1)
    x, sigma = torch.randn(3, 1, 6, 6, generator=torch.manual_seed(1)), torch.tensor([0.2, 1., 5.])
    assert images.sample(7, 1.).shape == (7, 1, 6, 6) and images.log_prob(x, sigma).shape == (3,)
    for f in (images.score, images.denoise):
        together, apart = f(x, sigma), torch.cat([f(x[i:i + 1], sigma[i].item()) for i in range(3)])
        assert together.shape == x.shape and torch.allclose(together, apart, atol=1e-5)
        assert torch.equal(f(x, sigma.view(3, 1, 1, 1)), together)


def test_samples_have_the_right_shares_and_width():
    x = THREE.sample(20_000, sigma=0.3, generator=torch.manual_seed(0))
    mode = torch.cdist(x, THREE.means).argmin(1)
    assert torch.allclose(mode.bincount() / 20_000, THREE.weights, atol=0.015)
    assert abs((x - THREE.means[mode]).std() - 0.5) < 0.01


def test_langevin_has_its_known_width():
    "On a Gaussian of variance v, steps of d settle at variance v/(1 - d/2v)"
    torch.manual_seed(0)
    one = Mixture([[0.]], [1.], std=1.)
    *_, x = langevin(one.score, torch.zeros(20_000, 1), 0., step=0.5, steps=60)
    assert abs(x.var() - 1 / (1 - 0.25)) < 0.05


def test_annealing_finds_the_masses_and_one_level_does_not():
    torch.manual_seed(0)
    def masses(x): return torch.cdist(x, THREE.means).argmin(1).bincount(minlength=3) / len(x)
    *_, stuck = langevin(THREE.score, 5 * torch.randn(2000, 2), 0.3, step=0.01, steps=300)
    steps = list(annealed_langevin(THREE.score, 10 * torch.randn(2000, 2), torch.logspace(1, -1, 40).tolist(), steps=30))
    assert len(steps) == 40 * 30
    assert (masses(stuck) - THREE.weights).abs().max() > 0.15
    assert (masses(steps[-1]) - THREE.weights).abs().max() < 0.05


def test_float64_stays():
    x = torch.zeros(2, 2, dtype=torch.float64)
    assert next(langevin(THREE.score, x, 1., 0.1, 1)).dtype == THREE.denoise(x, 1.).dtype == torch.float64
    assert math.isfinite(THREE.log_prob(1e4 * torch.ones(1, 2)).item())


def test_one_sigma_for_each_draw():
    "n = D = 2, where a row of sigmas could be taken for a column"
    many = Mixture(torch.zeros(1, 2), torch.ones(1), 0.)
    x = torch.cat([many.sample(2, torch.tensor([.1, 10.]), torch.Generator().manual_seed(i))[None] for i in range(500)])
    assert torch.allclose(x.square().mean((0, 2)).sqrt(), torch.tensor([.1, 10.]), rtol=.1)


def test_langevin_keeps_no_graph():
    net = torch.nn.Linear(2, 2)
    assert not any(x.requires_grad for x in langevin(lambda x, sigma: net(x), torch.zeros(3, 2), 1., .1, 5))
