"Typical wrong answers to chapter 02's exercises: each must get the cross"
WRONG = {
    "02.1": [
        "def slope(f, x, h):\n    return (f(x + h * torch.eye(len(x), dtype=x.dtype)) - f(x[None])) / h",
        "def slope(f, x, h):\n    n = h * torch.eye(len(x), dtype=x.dtype)\n    return (f(x + n) - f(x - n)) / h",
        "def slope(f, x, h):\n    return (f(x + h) - f(x - h)) / (2 * h) * torch.ones_like(x)",
    ],
    "02.2": [
        "def blurred_score(x, mean, std, sigma):\n    return (mean - x) / (std + sigma)**2",
        "def blurred_score(x, mean, std, sigma):\n    return (x - mean) / (std**2 + sigma**2)",
        "def blurred_score(x, mean, std, sigma):\n    return (mean - x) / std**2",
    ],
    "02.3": [
        "def largest_step(std, sigma):\n    return std**2 + sigma**2",
        "def largest_step(std, sigma):\n    return 2 * sigma**2",
        "def largest_step(std, sigma):\n    return 2 * (std + sigma)**2",
    ],
    "02.4": [
        "def ring_score(x, radius, width):\n    d = x.norm(dim=1, keepdim=True)\n    return -(d - radius) / width**2 * x",
        "def ring_score(x, radius, width):\n    d = x.norm(dim=1, keepdim=True)\n    return (d - radius) / width**2 * x / d",
        "def ring_score(x, radius, width):\n    d = x.norm(dim=1, keepdim=True)\n    return -(d - radius) / width * x / d",
    ],
}
