"CLIP: towers against transformers in float64, the tokenizer id by id, the contrastive loss against its floor"
import json, math, random, time, unicodedata
import pytest, torch
import torch.nn.functional as F
from minidiff.clip import *
from minidiff.bpe import kind

import transformers
transformers.logging.set_verbosity_error()

CAPTIONS = ["a red three", "a thick blue seven left of a thin green two", "four yellow fives", "two white zeros above a cyan nine on a navy background",
            "a blue seven to the right of a small orange one", "on a maroon background, three large magenta sixes", "a picture of a two and a nine"]


def rel(a, b): return ((a - b).abs().max() / b.abs().max()).item()


def randomise(model, seed=0):
    "Every parameter random, norms and biases too: defaults of one and zero hide swaps"
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name != "logit_scale": p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.2 + (1. if "norm" in name and name.endswith("weight") else 0.))
    return model.double().eval()


def hf_text(config, projected):
    eos = config.vocab - 1
    c = transformers.CLIPTextConfig(vocab_size=config.vocab, hidden_size=config.width, intermediate_size=4 * config.width, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, max_position_embeddings=config.context, hidden_act=config.act, projection_dim=config.proj or 512,
        bos_token_id=eos - 1, eos_token_id=eos, pad_token_id=eos)
    return transformers.CLIPTextModelWithProjection(c) if projected else transformers.CLIPTextModel(c)


def prefixed(state):
    "transformers 5.6 and later drop `text_model.` from CLIPTextModel's own keys; published files have it"
    return {k if k.startswith(("text_model.", "text_projection.")) else "text_model." + k: v for k, v in state.items()}


def some_ids(config, n=3):
    "Start, random ids, end, then either more ends or zeros"
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(0, config.vocab - 2, (n, config.context), generator=g)
    ids[:, 0] = config.vocab - 2
    for i in range(n): ids[i, 3 + 2 * i:] = config.vocab - 1
    ids[-1, -1] = 0  # as SDXL's second tokenizer pads
    return ids


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("proj", [None, 24])
def test_text_tower_equals_transformers(act, proj):
    config = CLIPTextConfig(vocab=90, width=32, layers=3, heads=4, context=11, act=act, proj=proj)
    theirs = randomise(hf_text(config, proj is not None))
    ours = TextEncoder(config).double()
    ours.load_state_dict(prefixed(theirs.state_dict()))  # strict: the same keys and shapes
    ids = some_ids(config)
    with torch.no_grad(): a, b = ours(ids), theirs(ids, output_hidden_states=True)
    assert rel(a.last, b.last_hidden_state) <= 1e-10
    assert rel(a.pooled, b.text_embeds if proj else b.pooler_output) <= 1e-10
    assert len(a.hidden) == len(b.hidden_states) == 4
    for x, y in zip(a.hidden, b.hidden_states): assert rel(x, y) <= 1e-10


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_clip_and_image_tower_equal_transformers(act):
    text = CLIPTextConfig(vocab=90, width=32, layers=2, heads=4, context=11, act=act)
    image = CLIPImageConfig(size=16, patch=4, width=40, layers=3, heads=5, act=act, proj=24)
    shared = dict(hidden_act=act)
    theirs = randomise(transformers.CLIPModel(transformers.CLIPConfig(projection_dim=24,
        text_config=dict(shared, vocab_size=90, hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=11, bos_token_id=88, eos_token_id=89, pad_token_id=89),
        vision_config=dict(shared, image_size=16, patch_size=4, hidden_size=40, intermediate_size=160, num_hidden_layers=3, num_attention_heads=5))))
    ours = CLIP(text, image).double()
    ours.load_state_dict(theirs.state_dict())
    ids, x = some_ids(text), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        out = theirs(input_ids=ids, pixel_values=x)
        txt, img = ours.encode_text(ids), ours.encode_image(x)
        loss = contrastive_loss(img, txt, ours.logit_scale)
        theirs_loss = (F.cross_entropy(out.logits_per_text, torch.arange(3)) + F.cross_entropy(out.logits_per_image, torch.arange(3))) / 2
        assert rel(txt, out.text_embeds) <= 1e-10 and rel(img, out.image_embeds) <= 1e-10
        assert rel(ours.logit_scale.exp() * txt @ img.T, out.logits_per_text) <= 1e-10
    assert abs(loss - theirs_loss) < 1e-10


def test_published_sizes():
    with torch.device("meta"):
        for config, n, params in [(CLIP_L, 196, 123_060_480), (OPENCLIP_BIGG, 517, 694_659_840)]:
            ours, theirs = TextEncoder(config), hf_text(config, config.proj is not None)
            a, b = ours.state_dict(), prefixed(theirs.state_dict())
            assert len(a) == n and sum(v.numel() for v in a.values()) == params
            assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
            states = ours(torch.zeros(2, 77, dtype=torch.long))
            assert states.last.shape == (2, 77, config.width) and states.pooled.shape == (2, config.proj or config.width) and len(states.hidden) == config.layers + 1


def test_course_sizes_and_dtypes():
    torch.manual_seed(0)
    clip, ids, x = CLIP(TEXT, IMAGE), some_ids(TEXT, 4), torch.randn(4, 3, 64, 64)
    assert 0.8e6 < sum(p.numel() for p in TextEncoder(TEXT).parameters()) < 0.95e6
    assert 0.6e6 < sum(p.numel() for name, p in clip.named_parameters() if name.startswith("vis")) < 0.7e6
    full = clip.encode_text(ids), clip.encode_image(x)
    with torch.autocast("cpu", torch.bfloat16): half = clip.encode_text(ids), clip.encode_image(x)
    for a, b in zip(full, half):
        assert torch.allclose(a.norm(dim=-1), torch.ones(4), atol=1e-5)
        assert b.dtype == torch.float32 and torch.allclose(b.norm(dim=-1), torch.ones(4), atol=1e-5)
        assert (a * b).sum(-1).min() > 0.999
    with torch.autocast("cpu", torch.bfloat16): loss = contrastive_loss(*half, clip.logit_scale, ids)
    assert loss.dtype == torch.float32 and torch.equal(loss, contrastive_loss(*half, clip.logit_scale, ids))  # logits are not rounded


def test_causal():
    torch.manual_seed(0)
    net, ids = TextEncoder(TEXT).double(), some_ids(TEXT, 1)
    for place in (1, 5, 20):
        other = ids.clone(); other[0, place] = 7
        if torch.equal(ids, other): continue
        for a, b in zip(net(ids).hidden, net(other).hidden):
            assert torch.equal(a[:, :place], b[:, :place]) and not torch.equal(a[:, place], b[:, place])


def test_doors(tmp_path):
    net, image = TextEncoder(TEXT), CLIP().vision_model
    with pytest.raises(ValueError, match="vocabulary from 0 to"): net(torch.tensor([[0, TEXT.vocab]]))
    with pytest.raises(ValueError, match="vocabulary from 0 to"): net(torch.tensor([[0, -1]]))
    with pytest.raises(ValueError, match="up to 32"): net(torch.zeros(1, 33, dtype=torch.long))
    with pytest.raises(ValueError, match="up to 32"): net(torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="64,64"): image(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="64,64"): image(torch.zeros(1, 1, 64, 64))
    with pytest.raises(FileNotFoundError, match="vocab.json and merges.txt"): Tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="lacks merges.txt"): Tokenizer.load(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="endoftext"): Tokenizer.load(tmp_path)
    with pytest.raises(ValueError, match="NoneType"): train_bpe(CAPTIONS, 5)([None])
    assert train_bpe(CAPTIONS, 5)([]).shape == (0, 32)


# --- the tokenizer ---

@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    ours = train_bpe(CAPTIONS * 3 + ["It's café 12 naïve 日本 <|!?", "!!! ... '' 'll they're"], 120)
    ours.save(folder)
    return ours, transformers.CLIPTokenizer.from_pretrained(folder), folder


def their_ids(theirs, texts, n=32): return torch.tensor(theirs(texts, padding="max_length", truncation=True, max_length=n).input_ids)


def random_texts(n, seed=0):
    "Letters, digits, signs, spaces, accents, other scripts, emoji, controls; only characters this Python's Unicode table knows"
    r = random.Random(seed)
    ranges = [(32, 127), (32, 127), (9, 32), (128, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0x980), (0x2000, 0x2070), (0x2150, 0x2190), (0x3000, 0x3100), (0x4E00, 0x4E80), (0xAC00, 0xAC80), (0x1F600, 0x1F640), (1, 0x10000)]
    def char():
        while True:
            c = chr(r.randrange(*r.choice(ranges)))
            if unicodedata.category(c) not in ("Cn", "Cs"): return c
    return ["".join(char() for _ in range(r.randrange(0, 40))) for _ in range(n)]


def test_tokenizer_equals_transformers(pair):
    ours, theirs, _ = pair
    hard = ["", " ", "   a  red\tthree\n", "It's 3 o'clock!!  café naïve 😀", "日本語 テスト", "RED Three", "İstanbul ΣΑΣ ß ﬁ", "e\u0301 x\u0308", "'start 'sixes we'll they've I'M 'LL x'd y're n't", "!'s ''s '",
            "12345 ½ ² Ⅷ ๓", "a<|endoftext|>b <|startoftext|> <|EndOfText|> <| |>", "a\u00a0b\u2003c\u3000d\u0085e\u2028f", "x\x1cy\x1dz\x1e\x1f.", "snake_case a-b (word:1.3) http://x.y/?z=1&amp;", "</w> a</w>b", "\ufeff\u200b\u200d zero width", "🇯🇵👩\u200d👩\u200d👧", "a" * 300, "!" * 300]
    texts = CAPTIONS + hard + random_texts(1000)
    bad = [t for t, a, b in zip(texts, ours(texts).tolist(), their_ids(theirs, texts).tolist()) if a != b]
    assert not bad, [ascii(t) for t in bad[:5]]


def test_pattern_over_all_of_unicode(pair):
    "Every assigned character: the same kind as in the tokenizer library's regular expression"
    from tokenizers import Regex, pre_tokenizers
    chars = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
    names = {"L": r"\p{L}", "N": r"\p{N}", " ": r"\s"}
    for name, pattern in names.items():
        split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
        theirs = {piece for piece, _ in split.pre_tokenize_str("".join(chars))}
        ours = {c for c in chars if kind(c) == name or (name == "L" and kind(c) in "strevmld")}
        assert ours == theirs, (name, [ascii(c) for c in sorted(ours ^ theirs)[:20]])


def test_tokenizer_files_and_back(pair, tmp_path):
    ours, theirs, folder = pair
    again = Tokenizer.load(folder)
    assert (again.vocab, again.merges, again.max_length, again.pad_id) == (ours.vocab, ours.merges, 32, ours.eos)
    zero = Tokenizer(ours.vocab, ours.merges, 20, pad_id=0)
    zero.save(tmp_path)
    theirs0 = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert torch.equal(zero(CAPTIONS), their_ids(theirs0, CAPTIONS, 20)) and (zero(CAPTIONS) == 0).any()
    assert Tokenizer.load(tmp_path).pad_id == 0 and theirs0.model_max_length == 20
    for t in CAPTIONS: assert ours.decode(ours(t)[0]) == t.replace(",", " ,") == theirs.decode(theirs(t).input_ids, skip_special_tokens=True)
    assert ours.decode(ours.encode("café 日本 😀")) == "café 日本 😀"


def test_long_text_keeps_its_end(pair):
    ours = pair[0]
    ids = ours(["red " * 100])
    assert ids.shape == (1, 32) and ids[0, 0] == ours.bos and ids[0, -1] == ours.eos and (ids[0, 1:-1] < ours.bos).all()


def test_train_bpe():
    tok = train_bpe(CAPTIONS, 10_000)
    assert tok.eos == len(tok.vocab) - 1 == max(tok.vocab.values()) and sorted(tok.vocab.values()) == list(range(len(tok.vocab)))
    assert all(len(tok.encode(w)) == 1 for t in CAPTIONS for w in split_words(t))  # enough merges: each word is one piece
    assert tok.merges == train_bpe(CAPTIONS, 10_000).merges and tok.merges[:7] == train_bpe(CAPTIONS, 7).merges
    assert max(train_bpe(["aa aa aa ab"], 1).merges) == ("a", "a</w>")
    assert merge(list("aaaa"), ("a", "a")) == ["aa", "aa"]


def test_tokenizer_speed(pair):
    ours, texts = pair[0], CAPTIONS * 1000
    ours(texts)
    times = []
    for _ in range(3):
        t = time.perf_counter(); ours(texts); times.append(time.perf_counter() - t)
    assert min(times) / len(texts) < 50e-6  # about 5 us on one quiet core


# --- the loss ---

def test_loss_reaches_its_floor():
    ids = torch.tensor([[1, 2], [3, 4], [1, 2], [5, 6], [1, 2], [3, 4]])
    same = (ids[:, None] == ids).all(-1)
    perfect = F.one_hot(same.double().argmax(1), 6).double()  # equal captions, equal embeddings
    loss = contrastive_loss(perfect, perfect, torch.tensor(math.log(100.)).double(), ids)
    assert abs(loss) < 1e-9
    hard = contrastive_loss(perfect, perfect, torch.tensor(math.log(100.)).double())
    assert abs(hard - same.sum(1).double().log().mean()) < 1e-9  # without soft targets: E ln #same
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        a, b = (F.normalize(torch.randn(6, 4, generator=g), dim=-1) for _ in range(2))
        assert contrastive_loss(a, b, torch.randn((), generator=g), ids) > 0


def test_loss_scale_stops_at_100_and_is_symmetric():
    g = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(8, 4, generator=g), dim=-1) for _ in range(2))
    ids = torch.randint(0, 3, (8, 1), generator=g)
    at = lambda s, x=a, y=b: contrastive_loss(x, y, torch.tensor(s), ids)
    assert torch.equal(at(math.log(100.) + 1), at(9.)) and at(4.) != at(4.5)
    assert torch.allclose(at(1.), at(1., b, a))
    order = torch.randperm(8, generator=g)
    assert torch.allclose(at(1.), contrastive_loss(a[order], b[order], torch.tensor(1.), ids[order]))


def test_towers_learn():
    "Eight captions, eight random pictures: from scratch to nearly no loss in 60 steps"
    torch.manual_seed(0)
    tok = train_bpe(CAPTIONS, 100)
    net = CLIP(CLIPTextConfig(vocab=len(tok.vocab), width=32, layers=2, heads=2, context=32), CLIPImageConfig(size=16, patch=8, width=32, layers=2, heads=2, proj=16))
    ids, x, opt = tok(CAPTIONS), torch.randn(len(CAPTIONS), 3, 16, 16), torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(60):
        loss = contrastive_loss(net.encode_image(x), net.encode_text(ids), net.logit_scale, ids)
        opt.zero_grad(); loss.backward(); opt.step()
    assert loss < 0.05


# --- CLIP's real vocabulary, from a package that ships it ---

@pytest.fixture(scope="module")
def real():
    import gzip
    from importlib.util import find_spec
    from pathlib import Path
    spec = find_spec("clip")
    lines = gzip.open(Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1:49152 - 256 - 2 + 1]]
    return Tokenizer(vocabulary(merges), merges)


def test_real_vocabulary(real, tmp_path):
    assert (len(real.vocab), real.bos, real.eos) == (49408, 49406, 49407)
    for text, ids in {"a photo of an astronaut riding a horse on mars": [320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496],
                      "masterpiece, best quality": [12066, 267, 949, 3027],
                      "It's 3 o'clock!!  caf\u00e9 na\u00efve \U0001f600": [585, 568, 274, 334, 262, 6716, 748, 15304, 1097, 35689, 563, 7334],
                      "\u65e5\u672c\u8a9e \u30c6\u30b9\u30c8": [39121, 44353, 34002, 508, 2429, 228, 32421, 486]}.items():
        assert real.encode(text) == ids
    real.save(tmp_path)
    texts = random_texts(2000, 7)
    assert torch.equal(real(texts), their_ids(transformers.CLIPTokenizer.from_pretrained(tmp_path), texts, 77))


def test_course_vocabulary():
    "TEXT fits the tokenizer that the recipe trains, and every caption fits the context"
    from minidiff.data import scenes, words
    captions = scenes(20_000, seed=0).captions
    tok = train_bpe(captions, 400)
    assert len(tok.vocab) == TEXT.vocab and tok.max_length == TEXT.context
    assert sum(len(tok.encode(w)) > 1 for w in words()) <= 1  # "mid-sized" alone is three words
    assert max(len(tok.encode(c)) for c in captions) + 2 <= TEXT.context


def test_no_texts(): assert Tokenizer(vocabulary([]), [])([]).dtype == torch.long


@pytest.mark.parametrize("bad", [dict(heads=3, width=10), dict(heads=0), dict(act="relu")])
def test_towers_that_cannot_be_built(bad):
    for cls in (CLIPTextConfig, CLIPImageConfig):
        with pytest.raises(ValueError, match="heads must divide width"): cls(**bad)
    with pytest.raises(ValueError, match="patch size"): CLIPImageConfig(size=60, patch=8)
