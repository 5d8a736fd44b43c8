"Typical wrong answers to the exercises of chapter 13: each must get the cross"
WRONG = {
    "13.1": [
        # the brightest place
        "import torch\ndef centre(maps):\n    i = maps.flatten(-2).argmax(-1)\n    return torch.stack([i // maps.shape[-1], i % maps.shape[-1]], -1)",
        # column first
        "import torch\ndef centre(maps):\n    p = maps / maps.sum((-2, -1), keepdim=True)\n    return torch.stack([(p.sum(-2) * torch.arange(p.shape[-1])).sum(-1), (p.sum(-1) * torch.arange(p.shape[-2])).sum(-1)], -1)",
        # not divided by the sum
        "import torch\ndef centre(p):\n    return torch.stack([(p.sum(-1) * torch.arange(p.shape[-2])).sum(-1), (p.sum(-2) * torch.arange(p.shape[-1])).sum(-1)], -1)",
    ],
    "13.2": [
        # softmax along the places
        "def read_map(q, k, word, size):\n    return (q @ k.mT / q.shape[-1] ** .5).softmax(-2)[..., word].mean(1).unflatten(1, size)",
        # heads averaged before the softmax
        "def read_map(q, k, word, size):\n    return (q @ k.mT / q.shape[-1] ** .5).mean(1).softmax(-1)[..., word].unflatten(1, size)",
        # no root of d
        "def read_map(q, k, word, size):\n    return (q @ k.mT).softmax(-1)[..., word].mean(1).unflatten(1, size)",
    ],
    "13.3": [
        # weights cut, not shared out again
        "def attend_real(q, k, v, real):\n    return ((q @ k.mT / q.shape[-1] ** .5).softmax(-1) * real[:, None, None]) @ v",
        # scores set to zero
        "def attend_real(q, k, v, real):\n    return (q @ k.mT / q.shape[-1] ** .5 * real[:, None, None]).softmax(-1) @ v",
        # the shortest caption's mask for all
        "def attend_real(q, k, v, real):\n    return (q @ k.mT / q.shape[-1] ** .5).masked_fill(~real.all(0), -float('inf')).softmax(-1) @ v",
    ],
    "13.4": [
        # the mean of the conditions
        "def composed(denoise, conds, uncond, scales):\n    def f(x, sigma):\n        u = denoise(x, sigma, **uncond)\n        return u + sum(s * (denoise(x, sigma, **c) - u) for s, c in zip(scales, conds)) / len(conds)\n    return f",
        # the blank estimate is taken away once
        "def composed(denoise, conds, uncond, scales):\n    def f(x, sigma):\n        u = denoise(x, sigma, **uncond)\n        return u + sum(s * denoise(x, sigma, **c) for s, c in zip(scales, conds)) - u\n    return f",
        # one scale for all
        "def composed(denoise, conds, uncond, scales):\n    def f(x, sigma):\n        u = denoise(x, sigma, **uncond)\n        return u + scales[0] * sum(denoise(x, sigma, **c) - u for c in conds)\n    return f",
    ],
}
