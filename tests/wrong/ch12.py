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
        # an id of 0 inside the text is taken for filling
        "def real(ids, eos):\n    return (ids != 0) & ((ids == eos).cumsum(-1) <= 1)",
    ],
    "12.4": [
        # not causal
        "def attend(q, k, v):\n    return (q @ k.mT / q.shape[-1] ** .5).softmax(-1) @ v",
        # a mask of zeros after the softmax
        "def attend(q, k, v):\n    return (q @ k.mT / q.shape[-1] ** .5).softmax(-1).tril() @ v",
        # no root of d
        "import torch\ndef attend(q, k, v):\n    s = q @ k.mT\n    return s.masked_fill(torch.ones_like(s).triu(1).bool(), -float('inf')).softmax(-1) @ v",
        # may not see itself
        "import torch\ndef attend(q, k, v):\n    s = q @ k.mT / q.shape[-1] ** .5\n    return s.masked_fill(torch.ones_like(s).triu(0).bool(), -float('inf')).softmax(-1) @ v",
    ],
    "12.5": [
        # ln of the mean
        "import math\ndef expected_floor(p, batch):\n    return sum(q * math.log(1 + (batch - 1) * q) for q in p.tolist())",
        # the picture itself is forgotten
        "import torch\ndef expected_floor(p, batch):\n    c = torch.multinomial(p, 400 * batch, True).view(400, batch)\n    return ((c[:, :, None] == c[:, None]).sum(-1) - 1).clamp(min=1).float().log().mean().item()",
        # over captions instead of pictures
        "import torch\ndef expected_floor(p, batch):\n    c = torch.multinomial(p, 400 * batch, True).view(400, batch)\n    m = torch.stack([(c == i).sum(1) for i in range(len(p))])\n    return m[m > 0].float().log().mean().item()",
    ],
    "12.6": [
        "import torch\ndef class_vectors(encode, templates, names):\n    return torch.stack([encode([t.format(n) for t in templates]).mean(0) for n in names])",
        "import torch\nimport torch.nn.functional as F\ndef class_vectors(encode, templates, names):\n    return F.normalize(torch.stack([encode([t.format(n) for n in names]).mean(0) for t in templates]), dim=-1)",
        "def class_vectors(encode, templates, names):\n    return encode([templates[0].format(n) for n in names])",
    ],
    "12.7": [
        # only the diagonal is a yes
        "import torch\nimport torch.nn.functional as F\ndef sigmoid_loss(img, txt, scale, bias, ids):\n    z = 2 * torch.eye(len(img)) - 1\n    return -F.logsigmoid(z * (scale * img @ txt.T + bias)).sum() / len(img)",
        # the mean over pairs
        "import torch\nimport torch.nn.functional as F\ndef sigmoid_loss(img, txt, scale, bias, ids):\n    z = 2. * (ids[:, None] == ids).all(-1) - 1\n    return -F.logsigmoid(z * (scale * img @ txt.T + bias)).mean()",
        # bias of the wrong sign for the noes
        "import torch\nimport torch.nn.functional as F\ndef sigmoid_loss(img, txt, scale, bias, ids):\n    z = 2. * (ids[:, None] == ids).all(-1) - 1\n    return -F.logsigmoid(z * scale * (img @ txt.T) + bias).sum() / len(img)",
        # log of a sigmoid
        "import torch\ndef sigmoid_loss(img, txt, scale, bias, ids):\n    z = 2. * (ids[:, None] == ids).all(-1) - 1\n    return -torch.sigmoid(z * (scale * img @ txt.T + bias)).log().sum() / len(img)",
    ],
}
