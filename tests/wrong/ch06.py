"Typical wrong answers to the exercises of chapter 6: every one must get the cross"
WRONG = {
    "06.1": [
        "def sees(kernels, strides):\n    return 1 + sum(k - 1 for k in kernels)",
        "def sees(kernels, strides):\n    width, step = 1, 1\n    for k, s in zip(kernels, strides):\n        step *= s\n        width += (k - 1) * step\n    return width",
        "def sees(kernels, strides):\n    width = 1\n    for k, s in zip(kernels, strides):\n        width = (width + k - 1) * s\n    return width",
    ],
    "06.2": [
        "def group_norm(x, groups, eps):\n    g = x.unflatten(1, (groups, -1))\n    return ((g - g.mean((2, 3, 4), keepdim=True)) / (g.var((2, 3, 4), keepdim=True) + eps).sqrt()).flatten(1, 2)",
        "def group_norm(x, groups, eps):\n    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + eps).sqrt()",
        "def group_norm(x, groups, eps):\n    g = x.unflatten(1, (groups, -1))\n    return ((g - g.mean((2, 3, 4), keepdim=True)) / (g.std((2, 3, 4), keepdim=True, correction=0) + eps)).flatten(1, 2)",
    ],
}
