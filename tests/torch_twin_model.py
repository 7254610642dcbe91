"""The model and the optimizers of the benchmark's peer, torch_twin.py.

What a Model takes is an object c with d_model, n_layers, n_heads, kv_heads,
d_ff, vocab, seq, dropout, attention_dropout, precision, residual and loss:
torch_twin.py's arguments. Parameter names are those of checkpoints.

Shapes: B batch, T time, C channels, H query heads, K key/value heads,
D = C / H head width, F feed-forward width, V vocabulary.
"""
import pathlib
import sys

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parent / "reference"))
import optimizer as reference  # noqa: E402  (hyper-parameters and schedule)

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
    """Cross-entropy of x [N, C] through the head."""
    if c.loss == "chunked":
        dtype = torch.bfloat16 if c.precision == "bf16" else torch.float32
        return chunked_loss(x.to(dtype), weight.to(dtype), targets)
    return F.cross_entropy(F.linear(x, weight).float(), targets)


@torch.compiler.disable  # torch 2.15 cannot trace it
def chunked_loss(x, weight, targets):
    """torch's own fused form, which stores no logits; new in late 2.x."""
    options = nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(x, weight, targets, options=options).float()


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

    def __init__(self, model, total_steps, compiled, keep_gradients):
        named = list(model.named_parameters())
        self.parameters = [p for _, p in named]
        muon = [p for n, p in named if reference.uses_muon(n, p.shape)]
        rest = [p for n, p in named if not reference.uses_muon(n, p.shape)]
        a = reference.ADAMW
        self.adamw = torch.optim.AdamW(
            rest, lr=a["lr"], betas=a["betas"], eps=a["eps"],
            weight_decay=a["weight_decay"], fused=True)
        self.rest, self.total = rest, total_steps
        self.keep_gradients = keep_gradients
        if keep_gradients:
            for p in self.parameters:
                p.grad = torch.zeros_like(p)
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
        """Apply step t, drop the gradients; gives their norm, a tensor."""
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
        self.drop_gradients()
        return norm

    def drop_gradients(self):
        """Free them, or zero them where CUDA graphs must not own them."""
        if self.keep_gradients:
            torch._foreach_zero_([p.grad for p in self.parameters])
        else:
            for p in self.parameters:
                p.grad = None
