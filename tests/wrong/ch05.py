"Typical wrong answers of chapter 5: each must get the cross"
WRONG = {
    "05.1": [
        "def noise_to_add(sigma, wanted):\n    return wanted - sigma",
        "def noise_to_add(sigma, wanted):\n    return wanted**2 - sigma**2",
        "def noise_to_add(sigma, wanted):\n    return (wanted**2 + sigma**2)**.5",
    ],
    "05.2": [
        "from minidiff.noise import karras\ndef by_angle(n, sigma_min=.002, sigma_max=80.):\n    return karras(n, sigma_min, sigma_max)",
        "import torch, math\ndef by_angle(n, sigma_min=.002, sigma_max=80.):\n    return torch.linspace(math.atan(sigma_max), math.atan(sigma_min), n + 1).tan()",
        "import torch, math\ndef by_angle(n, sigma_min=.002, sigma_max=80.):\n    return torch.cat([torch.linspace(math.atan(sigma_max), math.atan(sigma_min), n), torch.zeros(1)])",
    ],
    "05.3": [
        "def zero_terminal(abar):\n    shifted = abar - abar[-1]\n    return shifted*abar[0]/shifted[0]",
        "def zero_terminal(abar):\n    return (abar**.5 - abar[-1]**.5)**2",
        "def zero_terminal(abar):\n    abar[-1] = 0\n    return abar",
    ],
    "05.4": [
        "import numpy as np, torch\ndef equal_bits(n, levels, open_bits):\n    return torch.cat([torch.tensor(np.geomspace(levels[0], levels[-1], n)), torch.zeros(1)]).float()",
        "import numpy as np, torch\ndef equal_bits(n, levels, open_bits):\n    w = np.linspace(open_bits[0], open_bits[-1], n)\n    return torch.cat([torch.tensor(np.interp(w, open_bits, levels)), torch.zeros(1)]).float()",
        "import numpy as np, torch\ndef equal_bits(n, levels, open_bits):\n    w = np.linspace(open_bits[0], open_bits[-1], n)\n    return torch.cat([torch.tensor(np.interp(w, open_bits[::-1], levels[::-1])), torch.zeros(1)]).float()",
        "import numpy as np, torch\ndef equal_bits(n, levels, open_bits):\n    w = np.linspace(open_bits[0], open_bits[-1], n + 1)\n    return torch.tensor(np.exp(np.interp(w, open_bits[::-1], np.log(levels)[::-1]))).float()",
    ],
}
