"Typical wrong answers to chapter 01's exercises: each must get the cross"
WRONG = {
    "01.1": [
        "def to_signed(pixels):\n    return pixels[:, None] / 255",
        "def to_signed(pixels):\n    return pixels[:, None] / 128 - 1",
        "def to_signed(pixels):\n    return 2 * pixels[:, None] / 255 - 1",
        "def to_signed(pixels):\n    return pixels / 127.5 - 1",
    ],
    "01.2": [
        "def blend(ink, colour, background):\n    return background.view(3, 1, 1) + ink[None] * colour.view(3, 1, 1)",
        "def blend(ink, colour, background):\n    return torch.where(ink[None] > 0.5, colour.view(3, 1, 1), background.view(3, 1, 1))",
        "def blend(ink, colour, background):\n    return ink[None] * background.view(3, 1, 1) + (1 - ink[None]) * colour.view(3, 1, 1)",
    ],
    "01.3": [
        "def stroke_rank(images, labels):\n    ink = images.flatten(1).mean(1)\n    return ink.argsort().argsort() / (len(ink) - 1)",
        "def stroke_rank(images, labels):\n    ink, rank = images.flatten(1).mean(1), torch.zeros(len(images))\n    for c in labels.unique():\n"
        "        own = labels == c\n        rank[own] = ink[own].argsort() / (own.sum() - 1)\n    return rank",
        "def stroke_rank(images, labels):\n    ink, rank = images.flatten(1).mean(1), torch.zeros(len(images))\n    for c in labels.unique():\n"
        "        own = labels == c\n        rank[own] = ink[own].argsort().argsort() / len(images)\n    return rank",
    ],
    "01.4": [
        "def describe(a):\n    a = [int(v) for v in a]\n    return f'{COUNTS[a[0]][0]} {COLOURS[a[2]]} {DIGITS[a[1]]}'",
        "def describe(a):\n    def group(n, d, c, s, k):\n        return ' '.join([COUNTS[n][0], SIZES[s][0], *STROKES[k][:1], COLOURS[c], DIGITS[d] + ('s' if n > 1 else '')])\n"
        "    a = [int(v) for v in a]\n    text = group(*a[:5])\n    if a[5]: text += f' {RELATIONS[a[10]][0]} {group(*a[5:10])}'\n    return f'{text} on a {BACKGROUNDS[a[11]]} background'",
        "def describe(a):\n    return caption(a, [True] * 11 + [False], np.random.default_rng(0))",
    ],
}
