"Typical wrong answers of chapter 3: each must get the cross"
WRONG = {
    "03.1": [
        "def first_loss(name, sigma, d):\n    return 1.",
        "def first_loss(name, sigma, d):\n    return {'eps': 1., 'clean': d**2, 'v': (1 + sigma*d)/(1 + sigma), 'flow': 1 + d**2, 'edm': 1.}[name]",
        "def first_loss(name, sigma, d):\n    return {'eps': sigma**2, 'clean': d**2, 'v': 1., 'flow': 1 + d**2, 'edm': d**2}[name]",
    ],
    "03.2": [
        "def convert(output, x, sigma, source, to):\n    return output*source(sigma)[1]/to(sigma)[1]",
        "def convert(output, x, sigma, source, to):\n    a, b, c = source(sigma)\n    x0 = a*c*x + b*output\n    a, b, c = to(sigma)\n    return (x0 - a*c*x)/b",
        "def convert(output, x, sigma, source, to):\n    a, b, c = source(sigma)\n    return a*x + b*output",
    ],
    "03.3": [
        "def guess_sigma(x):\n    return x.flatten(1).std(1)",
        "def guess_sigma(x):\n    return x[:, 0, :4, :4].flatten(1).square().mean(1).sqrt()",
        "def guess_sigma(x):\n    return x[:, 0, :2].flatten().std().expand(1)",
        "def guess_sigma(x):\n    return (x[:, 0, 0] + 1).square().mean(1).sqrt()",
    ],
    "03.4": [
        "def expected_error(denoise, x, sigma):\n    return (denoise(x, sigma) - x).square().flatten(1).sum(1)",
        "import torch\ndef expected_error(denoise, x, sigma):\n    x = x.detach().requires_grad_()\n    g, = torch.autograd.grad(denoise(x, sigma).sum(), x)\n    return sigma**2*g.flatten(1).sum(1)",
        "import torch\ndef expected_error(denoise, x, sigma):\n    x = x.detach().requires_grad_()\n    out = denoise(x, sigma).flatten(1)\n    d = 0\n    for i in range(out.shape[1]):\n        g, = torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)\n        d = d + g.flatten(1)[:, i]\n    return sigma*d",
    ],
}
