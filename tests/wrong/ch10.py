"Typical wrong answers to the exercises of chapter 10: every one must get the cross"
WRONG = {
    "10.1": [
        "def kl_between(m1, logvar1, m2, logvar2):\n    shift, width = (m1 - m2).square() / logvar1.exp(), logvar2 - logvar1\n    return (shift + width.exp() - 1 - width) / 2",
        "def kl_between(m1, logvar1, m2, logvar2):\n    return ((m1 - m2).square() + (logvar1 - logvar2).exp() - 1 - (logvar1 - logvar2)) / 2",
        "def kl_between(m1, logvar1, m2, logvar2):\n    return ((m1 - m2).square() / logvar2.exp() + (logvar1 - logvar2).exp() - 1) / 2",
    ],
    "10.2": [
        "def honest_beta(db):\n    return 2 / 10 ** (db / 10)",
        "def honest_beta(db):\n    return 4 / 10 ** (db / 10)",
        "def honest_beta(db):\n    return 2 * 4 / 10 ** (db / 20)",
    ],
    "10.3": [
        "def in_use(mean, logvar):\n    return ((mean.square() + logvar.exp() - 1 - logvar) / 2).mean(0) > 0.05",
        "def in_use(mean, logvar):\n    return logvar.mean(0) < -0.1",
        "def in_use(mean, logvar):\n    return mean.abs().mean(0) > 0.1",
        "def in_use(mean, logvar):\n    return mean.std(0) > 0.2",
        "def in_use(mean, logvar):\n    return mean.std(0) > 0.02",
    ],
    "10.4": [
        "def free_nats(mean, logvar, free):\n    return ((mean.square() + logvar.exp() - 1 - logvar) / 2).clamp(min=free).mean(0).sum()",
        "def free_nats(mean, logvar, free):\n    return ((mean.square() + logvar.exp() - 1 - logvar) / 2).mean(0).sum().clamp(min=free)",
        "def free_nats(mean, logvar, free):\n    return (((mean.square() + logvar.exp() - 1 - logvar) / 2).mean(0) - free).clamp(min=0).sum()",
    ],
}
