"Typical wrong answers to chapter 9's exercises"
WRONG = {
    "09.1": [
        # the bar from training images: their nearest is themselves, at 0
        "def memorised(fake, train, test, q=.05):\n"
        "    bar = torch.cdist(train, train).amin(1).quantile(q)\n"
        "    return (torch.cdist(fake, train).amin(1) < bar).float().mean().item()",
        # the mean instead of the 5% quantile
        "def memorised(fake, train, test, q=.05):\n"
        "    bar = torch.cdist(test, train).amin(1).mean()\n"
        "    return (torch.cdist(fake, train).amin(1) < bar).float().mean().item()",
        # looks for the pictures among the test images
        "def memorised(fake, train, test, q=.05):\n"
        "    bar = torch.cdist(test, train).amin(1).quantile(q)\n"
        "    return (torch.cdist(fake, test).amin(1) < bar).float().mean().item()",
    ],
    "09.2": [
        "from minidiff.metrics import fid\ndef fid_at_infinity(a, b):\n    return fid(a, b)",
        # a line over n, not 1/n
        "from minidiff.metrics import fid\ndef fid_at_infinity(a, b):\n"
        "    sizes = [200, 400, 600, 800, 1000]\n"
        "    values = [fid(a[:n], b[:n]) for n in sizes]\n"
        "    return np.polyfit(sizes, values, 1)[1]",
        # the slope instead of the intercept
        "from minidiff.metrics import fid\ndef fid_at_infinity(a, b):\n"
        "    sizes = np.array([200, 400, 600, 800, 1000])\n"
        "    values = [fid(a[:n], b[:n]) for n in sizes]\n"
        "    return np.polyfit(1 / sizes, values, 1)[0]",
    ],
    "09.3": [
        # copies
        "def counterfeit(features, n):\n    return features[torch.arange(n) % len(features)]",
        # right only on average
        "def counterfeit(features, n):\n"
        "    root = torch.linalg.cholesky(features.T.cov())\n"
        "    return torch.randn(n, features.shape[1], dtype=features.dtype) @ root.T + features.mean(0)",
        # each feature for itself: correlations lost
        "def counterfeit(features, n):\n"
        "    z = torch.randn(n, features.shape[1], dtype=features.dtype)\n"
        "    return (z - z.mean(0)) / z.std(0) * features.std(0) + features.mean(0)",
    ],
    "09.4": [
        # balls around the fake points: recall
        "def coverage(real, fake, k=5):\n"
        "    radius = torch.cdist(fake, fake).kthvalue(k + 1).values\n"
        "    return (torch.cdist(real, fake) <= radius).any(1).float().mean().item()",
        # counts the point itself as its first neighbour
        "def coverage(real, fake, k=5):\n"
        "    radius = torch.cdist(real, real).kthvalue(k).values\n"
        "    return (torch.cdist(real, fake) <= radius[:, None]).any(1).float().mean().item()",
        # share of fake points that are inside: precision
        "def coverage(real, fake, k=5):\n"
        "    radius = torch.cdist(real, real).kthvalue(k + 1).values\n"
        "    return (torch.cdist(real, fake) <= radius[:, None]).any(0).float().mean().item()",
    ],
}
