"Typical wrong answers of chapter 15: each must get the cross"
WRONG = {
    "15.1": [
        "def strength_for(sigma, sigmas):\n    return sigma/float(sigmas[0])",
        "def strength_for(sigma, sigmas):\n    k = int((sigmas >= sigma).sum())\n    return 1 - k/(len(sigmas) - 1)",
        "def strength_for(sigma, sigmas):\n    return 1.",
    ],
    "15.2": [
        "import torch\ndef latent_mask(mask):\n    return torch.nn.functional.avg_pool2d(mask, 8)",
        "def latent_mask(mask):\n    return mask[..., ::8, ::8]",
        "import torch\ndef latent_mask(mask):\n    return (torch.nn.functional.avg_pool2d(mask, 8) > .5).float()",
        "import torch\ndef latent_mask(mask):\n    return torch.nn.functional.max_pool2d(mask, 8) > 0",
    ],
    "15.3": [
        "def edit_mask(old, new, z, sigma, noises):\n    gap = sum((new(z + e, sigma) - old(z + e, sigma)).abs().mean(1, keepdim=True) for e in noises)/len(noises)\n    return (gap/gap.amax((2, 3), keepdim=True) > .5).float()",
        "def edit_mask(old, new, z, sigma, noises):\n    x = z + sigma*noises[0]\n    gap = (new(x, sigma) - old(x, sigma)).abs().mean(1, keepdim=True)\n    return (gap/gap.amax((2, 3), keepdim=True) > .5).float()",
        "def edit_mask(old, new, z, sigma, noises):\n    gap = sum((new(z + sigma*e, sigma) - old(z + sigma*e, sigma)).abs().mean(1, keepdim=True) for e in noises)/len(noises)\n    return (gap/gap.max() > .5).float()",
        "def edit_mask(old, new, z, sigma, noises):\n    gap = sum((new(z + sigma*e, sigma) - old(z + sigma*e, sigma)).abs() for e in noises)/len(noises)\n    return (gap/gap.amax((2, 3), keepdim=True) > .5).float()",
    ],
    "15.4": [
        "import torch\ndef step_up(denoise, x, s, s2, rounds=20):\n    return torch.lerp(denoise(x, s), x, s2/s)",
        "import torch\ndef step_up(denoise, x, s, s2, rounds=20):\n    y = torch.lerp(denoise(x, s), x, s2/s)\n    for _ in range(rounds): y = torch.lerp(denoise(y, s), x, s2/s)\n    return y",
        "import torch\ndef step_up(denoise, x, s, s2, rounds=20):\n    y = x\n    for _ in range(rounds): y = torch.lerp(denoise(y, s2), y, s2/s)\n    return y",
    ],
}
