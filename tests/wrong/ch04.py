"Typical wrong answers of chapter 4: each must get the cross"
WRONG = {
    "04.1": [
        "def first_guess(images, labels, p):\n    return images.mean(0)",
        "import torch\ndef first_guess(images, labels, p):\n    w = p[labels]\n    return (images*w[:, None, None, None]).sum(0)/w.sum()",
        "def first_guess(images, labels, p):\n    return images[labels == p.argmax()].mean(0)",
    ],
    "04.2": [
        "import math\ndef commit_sigma(entropies, sigmas):\n    h = math.log2(10)/2\n    i = int((entropies > h).sum())\n    a, b = entropies[i-1], entropies[i]\n    w = (a - h)/(a - b)\n    return float(sigmas[i-1] + w*(sigmas[i] - sigmas[i-1]))",
        "import math\ndef commit_sigma(entropies, sigmas):\n    return float(sigmas[int((entropies > math.log2(10)/2).sum())])",
        "import math\ndef commit_sigma(entropies, sigmas):\n    h = math.log(10)/2\n    i = int((entropies > h).sum())\n    a, b = entropies[i-1], entropies[i]\n    w = (a - h)/(a - b)\n    return math.exp(float(sigmas[i-1].log() + w*(sigmas[i].log() - sigmas[i-1].log())))",
    ],
    "04.3": [
        "def misled(denoise, factor):\n    return lambda x, sigma: denoise(x, sigma/factor)",
        "def misled(denoise, factor):\n    return lambda x, sigma: denoise(factor*x, sigma)",
        "def misled(denoise, factor):\n    return denoise",
    ],
    "04.4": [
        "import torch\ndef visible(images, sigma):\n    n = images.shape[-1]\n    power = torch.fft.fft2(images - images.mean(0)).abs().square().mean((0, 1))\n    f = torch.fft.fftfreq(n)*n\n    radius = (f[:, None]**2 + f[None, :]**2).sqrt().round()\n    seen = -1\n    for r in range(n//2 + 1):\n        if power[radius == r].mean() < sigma**2: break\n        seen = r\n    return seen",
        "import torch\ndef visible(images, sigma):\n    n = images.shape[-1]\n    power = torch.fft.fft2(images - images.mean(0), norm='ortho').abs().square().mean((0, 1))\n    f = torch.fft.fftfreq(n)*n\n    radius = (f[:, None]**2 + f[None, :]**2).sqrt().round()\n    seen = -1\n    for r in range(n//2 + 1):\n        if power[radius == r].mean() < sigma: break\n        seen = r\n    return seen",
        "import torch\ndef visible(images, sigma):\n    n = images.shape[-1]\n    power = torch.fft.fft2(images, norm='ortho').abs().square().mean((0, 1))\n    f = torch.fft.fftfreq(n)*n\n    radius = (f[:, None]**2 + f[None, :]**2).sqrt().round()\n    seen = -1\n    for r in range(n//2 + 1):\n        if power[radius == r].mean() < sigma**2: break\n        seen = r\n    return seen",
    ],
}
