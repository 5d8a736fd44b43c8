"Typical wrong answers to the exercises of chapter 12: each must get the cross"
WRONG = {
    "12.1": [
        "from collections import Counter\nfrom itertools import pairwise\ndef best_pair(words):\n    return Counter(p for w in words for p in pairwise(w)).most_common(1)[0][0]",
        "from collections import Counter\nfrom itertools import pairwise\ndef best_pair(words):\n    c = Counter()\n    for w, n in words.items():\n        for p in set(pairwise(w)): c[p] += n\n    return max(c, key=c.get)",
        "from collections import Counter\nfrom itertools import pairwise\ndef best_pair(words):\n    c = Counter()\n    for w, n in words.items():\n        for p in pairwise(w): c[tuple(sorted(p))] += n\n    return max(c, key=c.get)",
    ],
    "12.2": [
        # from left to right
        "def split(pieces, ranks):\n    out = []\n    for p in pieces:\n        out.append(p)\n        while len(out) > 1 and (out[-2], out[-1]) in ranks: out[-2:] = [out[-2] + out[-1]]\n    return out",
        # one pass over the merges' pairs, the last first
        "from itertools import pairwise\nfrom minidiff.clip import merge\ndef split(pieces, ranks):\n    pieces = list(pieces)\n    while known := [p for p in pairwise(pieces) if p in ranks]: pieces = merge(pieces, max(known, key=ranks.get))\n    return pieces",
        # stops after one merge
        "from itertools import pairwise\nfrom minidiff.clip import merge\ndef split(pieces, ranks):\n    known = [p for p in pairwise(pieces) if p in ranks]\n    return merge(list(pieces), min(known, key=ranks.get)) if known else list(pieces)",
    ],
    "12.3": [
        "def real(ids, eos):\n    return ids != eos",
        "import torch\ndef real(ids, eos):\n    return torch.arange(ids.shape[1]) < (ids == eos).int().argmax(-1, keepdim=True)",
        "def real(ids, eos):\n    return (ids == eos).cumsum(1) <= 1",
    ],
}
