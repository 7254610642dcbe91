"""The reference optimizer: schedule, clipping, Muon and AdamW, plainly.

The order of one optimizer step t (t counts from 0), given the gradients g:
  1. norm   = sqrt of the sum of squares of all gradients, unclipped
  2. factor = schedule(t, ...)               multiplies both learning rates
  3. Muon sees g * min(1, clip / norm of step t - 1)   (g itself at t = 0)
     AdamW sees g * min(1, clip / norm of step t)
  4. each parameter is updated once, by Muon if it is a 2-D weight of a block,
     by AdamW if not.
"""
import math

import torch

MUON = {"lr": 0.01, "momentum": 0.95}
ADAMW = {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
SCHEDULE = {"warmup": 0.05, "final": 0.1}
CLIP = 1.0


def schedule(t, total, warmup, final):
    """Factor of the learning rate at step t of total, t = 0 ... total - 1.

    warmup is a fraction of total; W = floor(warmup * total + 1/2) steps of it
    rise linearly, (t + 1) / W, so that step 0 does move; the others follow
    half a cosine from 1 at t = W towards `final`, which step `total` (never
    run) would reach.
    """
    warmup_steps = math.floor(warmup * total + 0.5)
    if t < warmup_steps:
        return (t + 1) / warmup_steps
    progress = (t - warmup_steps) / (total - warmup_steps)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def uses_muon(name, shape):
    return name.startswith("blocks.") and len(shape) == 2


def newton_schulz(g):
    """NS5: g [rows, cols] with its singular values pushed towards 1."""
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / (torch.linalg.norm(x) + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def muon_update(w, g, state, factor):
    """One Muon step in place; state holds the momentum, zeros at first."""
    if not state:
        state["momentum"] = torch.zeros_like(w)
    momentum = MUON["momentum"]
    state["momentum"] = torch.lerp(state["momentum"], g, 1 - momentum)
    update = newton_schulz(torch.lerp(g, state["momentum"], momentum))
    rows, cols = w.shape
    w -= MUON["lr"] * factor * max(1, rows / cols) ** 0.5 * update


def adamw_update(w, g, state, factor):
    """One AdamW step in place, weight decay first (Loshchilov, Hutter)."""
    if not state:
        state.update(m=torch.zeros_like(w), v=torch.zeros_like(w), steps=0)
    beta1, beta2 = ADAMW["betas"]
    lr = ADAMW["lr"] * factor
    state["steps"] += 1
    state["m"] = beta1 * state["m"] + (1 - beta1) * g
    state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
    m = state["m"] / (1 - beta1 ** state["steps"])
    v = state["v"] / (1 - beta2 ** state["steps"])
    w -= lr * ADAMW["weight_decay"] * w
    w -= lr * m / (torch.sqrt(v) + ADAMW["eps"])


def gradient_norm(gradients):
    """Euclidean norm over all gradients together."""
    return math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))


def clip_factor(norm):
    return min(1.0, CLIP / norm) if norm > 0 else 1.0


class Optimizer:
    """Muon and AdamW over a dict of parameters, updated in place."""

    def __init__(self, parameters, total_steps):
        self.parameters = parameters
        self.total = total_steps
        self.states = {name: {} for name in parameters}
        self.previous_norm = 0.0

    @torch.no_grad()
    def step(self, t, gradients):
        """Apply step t; gives (learning rate factor, gradient norm)."""
        norm = gradient_norm(gradients)
        factor = schedule(t, self.total, **SCHEDULE)
        muon_clip = clip_factor(self.previous_norm)
        adamw_clip = clip_factor(norm)
        for name, w in self.parameters.items():
            if uses_muon(name, w.shape):
                muon_update(w, gradients[name] * muon_clip,
                            self.states[name], factor)
            else:
                adamw_update(w, gradients[name] * adamw_clip,
                             self.states[name], factor)
        self.previous_norm = norm
        return factor, norm
