"The training loop: exact resume, several processes, files of weights."
import os, subprocess, sys
import pytest, torch
from minidiff.muon import Muon, orthogonal
from minidiff.train import EMA, Trainer, adamw, resume_run, run_tensors, save_run, train, warmup_decay
from minidiff.weights import load_tensors, save_tensors


def run(steps=20, seed=0, opt=adamw):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    trainer = Trainer(model, steps, warmup=3, opt=opt)
    loss = lambda x: (model(x) - x.sum(1, keepdim=True) + .1 * torch.randn(len(x), 1)).square().mean()
    return trainer, train(trainer, loss, lambda n: torch.randn(16, 4, generator=torch.Generator().manual_seed(n)))


@pytest.mark.parametrize("opt", [adamw, Muon])
@pytest.mark.parametrize("stop", [1, 9, 19])
def test_kill_and_resume_is_bit_equal(tmp_path, stop, opt):
    whole, steps = run(opt=opt)
    for _ in steps: pass
    part, steps = run(opt=opt)
    for _ in range(stop): next(steps)
    save_run(part, tmp_path / "run.safetensors")
    again, steps = run(seed=1, opt=opt)  # a fresh process starts elsewhere
    resume_run(again, tmp_path / "run.safetensors")
    for _ in steps: pass
    a, b = run_tensors(whole), run_tensors(again)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_learning():
    trainer, steps = run(steps=600)
    losses = [float(v) for v in steps]
    assert sum(losses[-50:]) < .2 * sum(losses[:50])


def test_orthogonal_keeps_directions():
    "U S V^T becomes U f(S) V^T, f near 1"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 16, 40, generator=g, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ orthogonal(x) @ vt.mT
    f = inner.diagonal(dim1=1, dim2=2)
    assert .67 < f.min() and f.max() < 1.21
    torch.testing.assert_close(orthogonal(x), u @ torch.diag_embed(f) @ vt, rtol=0, atol=1e-12)
    assert orthogonal(torch.zeros(1, 2, 3)).eq(0).all()


@pytest.mark.parametrize("shape", [(16, 40), (40, 16)])
def test_muon_is_torchs_on_a_matrix(shape):
    "torch's own works in bfloat16, which has 8 binary digits"
    ours, theirs = (torch.nn.Linear(*shape, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    start = ours.weight.detach().clone()
    a, b = Muon(ours, 1e-2, .1), torch.optim.Muon(theirs.parameters(), 1e-2, weight_decay=.1, adjust_lr_fn="match_rms_adamw")
    for n in range(6):
        gradient = torch.randn(start.shape, generator=torch.Generator().manual_seed(n))
        for net, opt in ((ours, a), (theirs, b)):
            net.weight.grad = gradient.clone()
            opt.step()
    assert (ours.weight - theirs.weight).norm() < .02 * (theirs.weight - start).norm()


def test_muon_leaves_the_rest_to_adamw():
    "Biases and embeddings move as under AdamW, a convolution as the matrix that it is, a parameter without gradient not at all"
    def net():
        torch.manual_seed(0)
        return torch.nn.ModuleDict(dict(words=torch.nn.Embedding(5, 4), conv=torch.nn.Conv2d(4, 6, 3), idle=torch.nn.Linear(3, 3)))
    mine, plain, before = net(), net(), net()
    for model, opt in ((mine, Muon(mine, 1e-2)), (plain, adamw(plain, 1e-2))):
        x = model["words"](torch.arange(18).view(2, 3, 3) ** 2 % 5).movedim(-1, 1)
        model["conv"](x).square().sum().backward()
        opt.step()
    for k in ("words.weight", "conv.bias", "idle.weight"): assert torch.equal(mine.state_dict()[k], plain.state_dict()[k]), k
    assert torch.equal(mine["idle"].weight, before["idle"].weight)
    move = (mine["conv"].weight - before["conv"].weight * (1 - 1e-2 * .01)).flatten(1)
    values = torch.linalg.svdvals(move) / (.2 * 1e-2 * 36 ** .5)
    assert values[0] < 1.21 and values[1] > .67 and values[2] < .01  # two examples have two directions


def test_warmup_decay():
    factors = [warmup_decay(i, i / 100, 10) for i in range(101)]
    assert factors[0] == .1 and factors[100] == 0 and max(factors) == factors[9] == .91
    assert all(a > b for a, b in zip(factors[9:], factors[10:]))


def test_minutes_end_on_time():
    model = torch.nn.Linear(4, 1)
    trainer = Trainer(model, minutes=.01, warmup=3)
    losses = list(train(trainer, lambda x: model(x).square().mean(), lambda n: torch.randn(8, 4)))
    assert len(losses) > 20 and trainer.done == 1 and trainer.opt.param_groups[0]["lr"] < 1e-3
    for wrong in (dict(), dict(steps=3, minutes=1.)):
        with pytest.raises(ValueError, match="minutes"): Trainer(model, **wrong)


def test_ema_is_the_weighted_mean():
    "With a constant decay, n updates give sum of decay^k (1-decay) x_k"
    model = torch.nn.Linear(1, 1).double()
    ema, values = EMA(model, decay=.5), torch.randn(40, dtype=torch.float64)
    ema.n = 10**9  # past its warm-up
    with torch.no_grad(): ema.model.weight.zero_()
    for value in values:
        with torch.no_grad(): model.weight.fill_(value)
        ema.update(model)
    torch.testing.assert_close(ema.model.weight.item(), sum(.5 ** (k + 1) * values[-1 - k] for k in range(40)).item())


def test_hostile_checkpoints(tmp_path):
    trainer, steps = run()
    next(steps)
    save_run(trainer, tmp_path / "a.safetensors")
    other, _ = run(steps=30)
    with pytest.raises(ValueError, match="20 steps"): resume_run(other, tmp_path / "a.safetensors")
    other, _ = run(opt=Muon)
    with pytest.raises(ValueError, match="20 steps of AdamW.*20 steps of Muon"): resume_run(other, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="seed 0.*seed 1"): resume_run(Trainer(torch.nn.Linear(2, 2), 20, seed=1), tmp_path / "a.safetensors")
    stranger = Trainer(torch.nn.Linear(2, 2), 20)
    with pytest.raises(ValueError, match="another model"): resume_run(stranger, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for cut in (3, 60, len(whole) // 2):
        (tmp_path / "b.safetensors").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="b.safetensors"): load_tensors(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="c.safetensors"): load_tensors(tmp_path / "c.safetensors")


def test_nothing_half_written(tmp_path):
    save_tensors(tmp_path / "a.safetensors", dict(x=torch.zeros(3)))
    with pytest.raises(Exception): save_tensors(tmp_path / "a.safetensors", dict(x="not a tensor"))
    assert load_tensors(tmp_path / "a.safetensors")[0]["x"].shape == (3,) and len(list(tmp_path.iterdir())) == 1


TWO = """
import atexit, os, torch
if os.path.exists("/proc/self/task"):  # registered first, so run last: gloo's threads are gone, or one could abort the exit
    atexit.register(lambda: any("gloo" in open(f"/proc/self/task/{t}/comm").read() for t in os.listdir("/proc/self/task")) and os._exit(3))
from minidiff.train import Trainer, start_process, train
from minidiff.weights import save_tensors
device, rank, world = start_process("cpu")
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
trainer = Trainer(model, LENGTH, warmup=3, rank=rank, world=world)
trainer.begun -= 9 * rank  # seconds apart
data = lambda n: torch.randn(8, 4, generator=torch.Generator().manual_seed(n))
for _ in train(trainer, lambda x: (model(x) - x.sum(1, keepdim=True)).square().mean(), data): pass
save_tensors(f"{rank}.safetensors", dict(model.state_dict(), step=torch.tensor(trainer.step)))
"""


def on_two_processes(folder, script):
    (folder / "two.py").write_text(script)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2", "two.py"],
                          cwd=folder, timeout=200, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_stop_together(tmp_path):
    "A run of a given time: process 0's clock counts for both"
    on_two_processes(tmp_path, TWO.replace("LENGTH", "minutes=.1"))
    a, b = (load_tensors(tmp_path / f"{rank}.safetensors")[0] for rank in (0, 1))
    assert a["step"] > 20 and all(torch.equal(a[k], b[k]) for k in a)


def test_two_processes_equal_one_with_both_batches(tmp_path):
    on_two_processes(tmp_path, TWO.replace("LENGTH", "30"))
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    trainer = Trainer(model, 30, warmup=3)
    draw = lambda n: torch.randn(8, 4, generator=torch.Generator().manual_seed(n))
    for _ in train(trainer, lambda x: (model(x) - x.sum(1, keepdim=True)).square().mean(), lambda n: torch.cat([draw(2 * n), draw(2 * n + 1)])): pass
    two = load_tensors(tmp_path / "0.safetensors")[0]
    for k, w in model.state_dict().items(): torch.testing.assert_close(two[k], w, rtol=1e-5, atol=1e-6)


def test_the_average_of_a_model_that_was_converted():
    "Storage that is the model's no more would be followed in silence"
    model = torch.nn.Linear(2, 2)
    ema = EMA(model, .5)
    model.double()
    with torch.no_grad(): model.weight.fill_(5.)
    with pytest.raises(RuntimeError): ema.update(model)


@pytest.mark.parametrize("length", [dict(steps=0), dict(steps=-3), dict(minutes=0)])
def test_a_run_has_a_length(length):
    with pytest.raises(ValueError, match="more than 0"): Trainer(torch.nn.Linear(1, 1), **length)
