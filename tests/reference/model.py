"""The reference model: one decoder, written plainly, in PyTorch.

It follows the definition of the model in the project's README word by word
and is meant to be read, not to be fast: no fused operator, no library
attention, every formula spelled out. `parameters` is a dict of tensors under
the names that checkpoints use; dropout does not exist here.

Shapes: B batch, T time, C channels, H query heads, K key/value heads,
D = C / H head width, F feed-forward width, V vocabulary.
"""
from dataclasses import asdict, dataclass, field

import torch


@dataclass(frozen=True)
class Rope:
    """Rotary positions.

    The first D * fraction / 2 pairs of a head turn, the others stand still.
    Frequencies f_i = base^(-i / n), n = h - 1 if inclusive (the last is then
    1 / base), n = h otherwise, where h = D * fraction / 2 and i = 0 ... h - 1.
    sense -1 turns a pair (x1, x2) by the angle -t f, the original's way:
      y1 = x1 cos + x2 sin, y2 = -x1 sin + x2 cos;
    sense +1 is the Hugging Face way:
      y1 = x1 cos - x2 sin, y2 =  x1 sin + x2 cos.
    Exchanging the two halves of each head's rows in the q and k weights
    turns one sense into the other.
    """
    base: float = 10000.0
    fraction: float = 0.5
    inclusive: bool = True
    sense: int = -1


@dataclass(frozen=True)
class Config:
    """What a model is; stored as JSON in the metadata of every file."""
    vocab: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    batch: int
    seq: int
    tied: bool = True
    gated: bool = False
    embedding_scale: float = 1.0
    norm_eps: float = 2.0 ** -23
    rope: Rope = field(default_factory=Rope)

    @property
    def head_width(self):
        return self.d_model // self.n_heads

    def as_dict(self):
        return asdict(self)


def parameter_shapes(c):
    """Name -> shape, in the order in which the model uses them."""
    qkv = (c.n_heads + 2 * c.n_kv_heads) * c.head_width
    shapes = {"embedding.weight": (c.vocab, c.d_model)}
    for layer in range(c.n_layers):
        block = f"blocks.{layer}."
        shapes[block + "attention_norm.weight"] = (c.d_model,)
        shapes[block + "attention.qkv.weight"] = (qkv, c.d_model)
        shapes[block + "attention.out.weight"] = (c.d_model, c.d_model)
        shapes[block + "mlp_norm.weight"] = (c.d_model,)
        if c.gated:
            shapes[block + "mlp.gate_up.weight"] = (2 * c.d_ff, c.d_model)
        else:
            shapes[block + "mlp.up.weight"] = (c.d_ff, c.d_model)
        shapes[block + "mlp.down.weight"] = (c.d_model, c.d_ff)
    shapes["norm.weight"] = (c.d_model,)
    if not c.tied:
        shapes["head.weight"] = (c.vocab, c.d_model)
    return shapes


def rmsnorm(x, weight, eps):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    mean_square = (x * x).mean(dim=-1, keepdim=True)
    return x / torch.sqrt(mean_square + eps) * weight


def silu(x):
    return x / (1 + torch.exp(-x))


def rope_angles(c, dtype):
    """Angles [T, D / 2]: time times frequency, zeros where nothing turns."""
    half = c.head_width // 2
    turning = int(half * c.rope.fraction)
    steps = turning - 1 if c.rope.inclusive else turning
    i = torch.arange(turning, dtype=dtype)
    frequency = torch.zeros(half, dtype=dtype)
    frequency[:turning] = c.rope.base ** (-i / max(steps, 1))
    return torch.arange(c.seq, dtype=dtype)[:, None] * frequency[None, :]


def rotate(x, angles, sense):
    """Turn the halves of each head of x [B, T, heads, D] along time."""
    x1, x2 = x.chunk(2, dim=-1)
    cos = torch.cos(angles)[None, :, None, :]
    sin = sense * torch.sin(angles)[None, :, None, :]
    return torch.cat((x1 * cos - x2 * sin, x1 * sin + x2 * cos), dim=-1)


def attention(c, x, qkv_weight, out_weight, angles):
    """Causal attention; query head h reads key/value head h // (H / K).

    Rows of qkv_weight: the H query heads, the K key heads, the K value heads.
    """
    B, T, C = x.shape
    H, K, D = c.n_heads, c.n_kv_heads, c.head_width
    heads = (x @ qkv_weight.T).view(B, T, H + 2 * K, D)
    q, k, v = heads.split((H, K, K), dim=2)
    q = rotate(q, angles, c.rope.sense)
    k = rotate(k, angles, c.rope.sense)
    k = k.repeat_interleave(H // K, dim=2)
    v = v.repeat_interleave(H // K, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / D ** 0.5
    future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
    weights = torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1)
    mixed = torch.einsum("bhts,bshd->bthd", weights, v)
    return mixed.reshape(B, T, C) @ out_weight.T


def feed_forward(c, x, p, block):
    """down(silu(up(x))), or gated: down(silu(gate(x)) * up(x))."""
    if c.gated:
        gate, up = (x @ p[block + "mlp.gate_up.weight"].T).chunk(2, dim=-1)
        hidden = silu(gate) * up
    else:
        hidden = silu(x @ p[block + "mlp.up.weight"].T)
    return hidden @ p[block + "mlp.down.weight"].T


def logits(c, p, ids):
    """Logits [B, T, V] of ids [B, T]."""
    x = p["embedding.weight"][ids] * c.embedding_scale
    angles = rope_angles(c, x.dtype)
    for layer in range(c.n_layers):
        block = f"blocks.{layer}."
        y = rmsnorm(x, p[block + "attention_norm.weight"], c.norm_eps)
        x = x + attention(c, y, p[block + "attention.qkv.weight"],
                          p[block + "attention.out.weight"], angles)
        y = rmsnorm(x, p[block + "mlp_norm.weight"], c.norm_eps)
        x = x + feed_forward(c, y, p, block)
    x = rmsnorm(x, p["norm.weight"], c.norm_eps)
    return x @ p["embedding.weight" if c.tied else "head.weight"].T


def loss(c, p, ids, targets):
    """Mean cross-entropy in nats over all B * T positions."""
    log_probability = torch.log_softmax(logits(c, p, ids), dim=-1)
    return -log_probability.gather(-1, targets[..., None]).mean()
