"""The benchmark's peer: the project's model and optimizers in PyTorch.

PyTorch as fast as its documented features make it, for the same work: fused
qkv, scaled_dot_product_attention with grouped heads, torch.compile of model
and Muon, fused AdamW, Muon batched over same-shaped matrices, bf16 autocast
on CUDA, no host synchronization inside a step, batches already on the device.

  torch_twin.py --device cuda --compile --d_model 512 --batch 96 --json
  torch_twin.py --reference tests/reference/gqa.safetensors

The first trains on random tokens and prints tokens/s (median over --steps
optimizer steps after --warmup), peak memory and the loss. The second holds
this file against tests/reference: loss and gradients of a model file, the 20
steps of optimizer.safetensors; exit 1 beyond the limits.

Shapes: B batch, T time, C channels, H query heads, K key/value heads,
D = C / H head width, F feed-forward width, V vocabulary.
"""
import argparse
import contextlib
import json
import pathlib
import platform
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(pathlib.Path(__file__).parent / "reference"))
import optimizer as reference  # noqa: E402  (hyper-parameters and schedule)

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION,
            "cudnn": SDPBackend.CUDNN_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION,
            "math": SDPBackend.MATH}
MATRIX_DTYPE = [torch.float32]  # what Newton-Schulz multiplies in


# --- the model -------------------------------------------------------------

class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype),
                          eps=2.0 ** -23)


def rope_tables(seq, width):
    """cos and sin [T, 1, D / 2]; half of the pairs stand still."""
    turning = width // 4
    i = torch.arange(turning, dtype=torch.float64)
    frequency = torch.zeros(width // 2, dtype=torch.float64)
    frequency[:turning] = 10000.0 ** (-i / max(turning - 1, 1))
    angles = torch.arange(seq, dtype=torch.float64)[:, None, None] * frequency
    return angles.cos().float(), angles.sin().float()


class Attention(nn.Module):
    """Fused qkv, rotary q and k, causal attention, output projection."""

    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads = c.n_heads, c.kv_heads
        self.width = c.d_model // c.n_heads
        self.dropout = c.attention_dropout
        rows = (self.heads + 2 * self.kv_heads) * self.width
        self.qkv = nn.Linear(c.d_model, rows, bias=False)
        self.out = nn.Linear(c.d_model, c.d_model, bias=False)
        cos, sin = rope_tables(c.seq, self.width)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def rotate(self, x):
        """x [B, T, heads, D]: q and k heads together, one pass."""
        x1, x2 = x.chunk(2, dim=-1)
        y1 = x1 * self.cos + x2 * self.sin
        y2 = x2 * self.cos - x1 * self.sin
        return torch.cat((y1, y2), dim=-1).to(x.dtype)

    def forward(self, x):
        B, T, C = x.shape
        H, K, D = self.heads, self.kv_heads, self.width
        heads = self.qkv(x).view(B, T, H + 2 * K, D)
        q, k = self.rotate(heads[:, :, :H + K]).split((H, K), dim=2)
        v = heads[:, :, H + K:]
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=True, enable_gqa=H != K)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.up = nn.Linear(c.d_model, c.d_ff, bias=False)
        self.down = nn.Linear(c.d_ff, c.d_model, bias=False)
        self.dropout = c.dropout

    def forward(self, x):
        hidden = F.dropout(F.silu(self.up(x)), self.dropout, self.training)
        return self.down(hidden)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attention_norm = RMSNorm(c.d_model)
        self.attention = Attention(c)
        self.mlp_norm = RMSNorm(c.d_model)
        self.mlp = FeedForward(c)
        self.dropout = c.dropout

    def drop(self, x):
        return F.dropout(x, self.dropout, self.training)

    def forward(self, x):
        x = x + self.drop(self.attention(self.attention_norm(x)))
        return x + self.drop(self.mlp(self.mlp_norm(x)))


class Model(nn.Module):
    """ids, targets [B, T] -> mean cross-entropy; the head is tied."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embedding = nn.Embedding(c.vocab, c.d_model)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.n_layers))
        self.norm = RMSNorm(c.d_model)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids, targets):
        c = self.c
        x = self.embedding(ids) * c.d_model ** 0.5
        if c.residual == "bf16":
            x = x.bfloat16()
        x = F.dropout(x, c.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        x = F.dropout(self.norm(x), c.dropout, self.training)
        return head_loss(c, x.flatten(0, 1), self.embedding.weight,
                         targets.flatten())


def head_loss(c, x, weight, targets):
    """Cross-entropy of x [N, C] through the head; "chunked" is torch's own
    fused form (in 2.15, not in every older one), which stores no logits."""
    if c.loss == "chunked":
        dtype = torch.bfloat16 if c.precision == "bf16" else torch.float32
        options = nn.LinearCrossEntropyOptions()
        return F.linear_cross_entropy(x.to(dtype), weight.to(dtype), targets,
                                      options=options).float()
    return F.cross_entropy(F.linear(x, weight).float(), targets)


# --- the optimizers --------------------------------------------------------

def newton_schulz(x):
    """NS5 of a stack [n, rows, cols]; on the shorter side."""
    flip = x.shape[-2] > x.shape[-1]
    x = x.mT if flip else x
    x = x / (torch.linalg.matrix_norm(x.float(), keepdim=True) + 1e-7)
    x = x.to(MATRIX_DTYPE[0])
    for _ in range(5):
        a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return x.mT if flip else x


def muon_step(weights, gradients, momentum, clip, lr):
    """One step for same-shaped weights; momentum [n, rows, cols], in place."""
    beta = reference.MUON["momentum"]
    rows, cols = weights[0].shape
    g = torch.stack(gradients) * clip
    momentum.lerp_(g, 1 - beta)
    update = newton_schulz(torch.lerp(g, momentum, beta)).float()
    update = update * (-lr * max(1, rows / cols) ** 0.5)
    torch._foreach_add_(weights, list(update.unbind(0)))


class Optimizer:
    """Muon for the 2-D weights of blocks, fused AdamW for the rest, with the
    project's schedule and clipping; nothing here waits for the device."""

    def __init__(self, model, total_steps, compiled):
        named = [(n, p) for n, p in model.named_parameters()]
        self.parameters = [p for _, p in named]
        muon = [p for n, p in named if reference.uses_muon(n, p.shape)]
        rest = [p for n, p in named if not reference.uses_muon(n, p.shape)]
        a = reference.ADAMW
        self.adamw = torch.optim.AdamW(
            rest, lr=a["lr"], betas=a["betas"], eps=a["eps"],
            weight_decay=a["weight_decay"], fused=True)
        self.rest, self.total = rest, total_steps
        self.groups = self.by_shape(muon)
        device = self.parameters[0].device
        self.lr = torch.zeros((), device=device)
        self.muon_clip = torch.ones((), device=device)
        self.muon_step = (torch.compile(muon_step, dynamic=False)
                          if compiled else muon_step)

    @staticmethod
    def by_shape(weights):
        """[(weights of one shape, their momentum)], in order of appearance."""
        groups = {}
        for w in weights:
            groups.setdefault(w.shape, []).append(w)
        return [(ws, torch.zeros((len(ws), *shape), device=ws[0].device))
                for shape, ws in groups.items()]

    @torch.no_grad()
    def step(self, t):
        """Apply step t and drop the gradients; gives their norm, a tensor."""
        factor = reference.schedule(t, self.total, **reference.SCHEDULE)
        norms = torch._foreach_norm([p.grad for p in self.parameters])
        norm = torch.linalg.vector_norm(torch.stack(norms))
        clip = (reference.CLIP / norm).clamp(max=1.0)
        self.lr.fill_(reference.MUON["lr"] * factor)
        for weights, momentum in self.groups:
            self.muon_step(weights, [w.grad for w in weights], momentum,
                           self.muon_clip, self.lr)
        torch._foreach_mul_([p.grad for p in self.rest], clip)
        self.adamw.param_groups[0]["lr"] = reference.ADAMW["lr"] * factor
        self.adamw.step()
        self.muon_clip = clip
        for p in self.parameters:
            p.grad = None
        return norm


# --- training --------------------------------------------------------------

class Trainer:
    def __init__(self, c, total_steps):
        self.c = c
        torch.manual_seed(c.seed)
        self.model = Model(c).to(c.device)
        self.optimizer = Optimizer(self.model, total_steps, c.compile)
        self.forward = (torch.compile(self.model, mode=c.mode, dynamic=False,
                                      fullgraph=True)
                        if c.compile else self.model)

    def contexts(self):
        """Autocast and the choice of attention, for one forward pass."""
        stack = contextlib.ExitStack()
        if self.c.precision == "bf16":
            stack.enter_context(torch.autocast(self.c.device, torch.bfloat16))
        if self.c.attention != "auto":
            stack.enter_context(sdpa_kernel(BACKENDS[self.c.attention]))
        return stack

    def gradients(self, batches):
        """Accumulate over [(ids, targets)]; gives the mean loss, a tensor."""
        total = 0.0
        for ids, targets in batches:
            if self.c.compile:
                torch.compiler.cudagraph_mark_step_begin()
            with self.contexts():
                loss = self.forward(ids, targets) / len(batches)
            loss.backward()
            total = total + loss.detach()
        return total

    def step(self, t, batches):
        loss = self.gradients(batches)
        self.optimizer.step(t)
        return loss


def random_batches(c):
    """One optimizer step's micro-batches of random tokens, on the device."""
    generator = torch.Generator().manual_seed(c.seed)
    batches = []
    for _ in range(c.accumulate):
        tokens = torch.randint(0, c.vocab, (c.batch, c.seq + 1),
                               generator=generator)
        batches.append((tokens[:, :-1].contiguous().to(c.device),
                        tokens[:, 1:].contiguous().to(c.device)))
    return batches


class Stopwatch:
    """Times between marks, by events on CUDA so that nothing waits."""

    def __init__(self, device):
        self.cuda = device == "cuda"
        self.marks = []

    def mark(self):
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self):
        pairs = list(zip(self.marks, self.marks[1:]))
        if not self.cuda:
            return [b - a for a, b in pairs]
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in pairs]


def peak_memory(device):
    """Bytes: the CUDA allocator's peak, on the CPU the process's (VmHWM)."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(c):
    if c.device == "cuda":
        return torch.cuda.get_device_name()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def benchmark(c):
    """Train and measure; gives the result as a dict."""
    trainer = Trainer(c, c.warmup + c.steps)
    batches = random_batches(c)
    started = time.perf_counter()
    for t in range(c.warmup):
        first_loss = trainer.step(t, batches)
        if t == 0:
            first = (first_loss.item(), time.perf_counter() - started)
    watch = Stopwatch(c.device)
    watch.mark()
    for t in range(c.warmup, c.warmup + c.steps):
        loss = trainer.step(t, batches)
        watch.mark()
    seconds = watch.seconds()
    tokens = c.batch * c.seq * c.accumulate
    count = sum(p.numel() for p in trainer.model.parameters())
    flops = 6 * count + 6 * c.n_layers * c.d_model * c.seq
    rate = tokens / statistics.median(seconds)
    return {"tokens_per_second": rate,
            "step_seconds": statistics.median(seconds),
            "step_seconds_min": min(seconds),
            "step_seconds_max": max(seconds),
            "tokens_per_step": tokens, "parameters": count,
            "model_flops_per_token": flops,
            "model_flops_per_second": rate * flops,
            "peak_memory_bytes": peak_memory(c.device),
            "first_loss": first[0], "first_step_seconds": first[1],
            "loss": loss.item(), "config": vars(c),
            "device": device_name(c), "threads": torch.get_num_threads(),
            "torch": torch.__version__, "cuda": torch.version.cuda}


# --- against tests/reference -------------------------------------------------

def load_reference(c):
    """(tensors, metadata) of c.reference; c takes the file's shape."""
    import safetensors
    tensors = {}
    with safetensors.safe_open(c.reference, "pt") as opened:
        metadata = {k: json.loads(v) for k, v in opened.metadata().items()}
        for key in opened.keys():
            tensors[key] = opened.get_tensor(key).to(c.device)
    config = metadata["config"]
    if config["gated"] or not config["tied"]:
        sys.exit(f"{c.reference}: this twin has the original's layers only")
    for key in ("vocab", "d_model", "n_layers", "n_heads", "d_ff", "batch",
                "seq"):
        setattr(c, key, config[key])
    c.kv_heads, c.dropout, c.attention_dropout = config["n_kv_heads"], 0, 0
    return tensors, metadata


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def check_model(c, tensors, metadata):
    """Loss and every gradient of a model file."""
    trainer = Trainer(c, 1)
    names = [n for n, _ in trainer.model.named_parameters()]
    trainer.model.load_state_dict({n: tensors[n] for n in names})
    loss = trainer.gradients([(tensors["ids"].long(),
                               tensors["targets"].long())]).item()
    worst = max(relative(p.grad, tensors["grad." + n])
                for n, p in trainer.model.named_parameters())
    return {"loss": loss, "loss_relative": abs(loss / metadata["loss"] - 1),
            "gradient_relative": worst,
            "ok": abs(loss / metadata["loss"] - 1) < 1e-5 and worst < 1e-4}


def check_steps(c, tensors, metadata):
    """The losses of the optimizer file's steps and its final parameters."""
    total = metadata["optimizer"]["schedule"]["steps"]
    trainer = Trainer(c, total)
    named = dict(trainer.model.named_parameters())
    trainer.model.load_state_dict({n: tensors[n] for n in named})
    ids, targets = tensors["ids"].long(), tensors["targets"].long()
    worst = 0.0
    for t in range(total):
        loss = trainer.step(t, [(ids[t], targets[t])]).item()
        worst = max(worst, abs(loss - metadata["losses"][t]))
    final = max(relative(p.detach(), tensors["final." + n])
                for n, p in named.items())
    return {"loss": loss, "loss_difference": worst, "final_relative": final,
            "ok": worst < 1e-4 and final < 1e-4}


def check_reference(c):
    tensors, metadata = load_reference(c)
    check = check_steps if "losses" in metadata else check_model
    return check(c, tensors, metadata)


# --- the command line --------------------------------------------------------

def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu")
    for name, value in (("d_model", 512), ("n_layers", 8), ("n_heads", 8),
                        ("kv_heads", 0), ("d_ff", 2048), ("vocab", 49152),
                        ("batch", 24), ("seq", 512), ("accumulate", 1),
                        ("steps", 20), ("warmup", 5), ("threads", 0),
                        ("seed", 42)):
        add("--" + name, type=int, default=value)
    add("--dropout", type=float, default=0.1)
    add("--attention_dropout", type=float, help="default: that of --dropout")
    add("--precision", choices=("auto", "f32", "tf32", "bf16"),
        default="auto", help="auto: bf16 on cuda, f32 on the CPU")
    add("--residual", choices=("f32", "bf16"), default="f32",
        help="dtype of the stream between blocks; f32 is plain autocast")
    add("--attention", choices=("auto", *BACKENDS), default="auto")
    add("--loss", choices=("full", "chunked"), default="full")
    add("--compile", action="store_true")
    add("--mode", default="default", help="of torch.compile: default, "
        "reduce-overhead, max-autotune, max-autotune-no-cudagraphs")
    add("--reference", help="compare with this file instead of timing")
    add("--json", action="store_true")
    return parser


def settle(c):
    """Fill in what depends on other options and set torch's switches."""
    c.kv_heads = c.kv_heads or c.n_heads
    if c.attention_dropout is None:
        c.attention_dropout = c.dropout
    if c.precision == "auto":
        c.precision = "bf16" if c.device == "cuda" else "f32"
        c.precision = "f32" if c.reference else c.precision
    if c.precision == "bf16":
        MATRIX_DTYPE[0] = torch.bfloat16
    if c.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    if c.threads:
        torch.set_num_threads(c.threads)
    return c


def describe(result):
    """The result as lines for people."""
    if "ok" in result:
        return "\n".join(f"{k}: {v}" for k, v in result.items())
    return (f"{result['tokens_per_second']:.0f} tokens/s "
            f"({result['step_seconds'] * 1000:.1f} ms a step of "
            f"{result['tokens_per_step']} tokens, "
            f"{result['model_flops_per_second'] / 1e9:.0f} GFLOP/s)\n"
            f"peak memory {result['peak_memory_bytes'] / 2 ** 30:.3f} GiB, "
            f"loss {result['first_loss']:.4f} -> {result['loss']:.4f}\n"
            f"{result['device']}, {result['threads']} threads, "
            f"torch {result['torch']}, first step "
            f"{result['first_step_seconds']:.1f} s")


def main():
    parser = arguments()
    c = parser.parse_args()
    if min(c.steps, c.warmup, c.accumulate) < 1:
        parser.error("--steps, --warmup and --accumulate are at least 1")
    settle(c)
    result = check_reference(c) if c.reference else benchmark(c)
    print(json.dumps(result) if c.json else describe(result))
    return not result.get("ok", True)


if __name__ == "__main__":
    sys.exit(main())
