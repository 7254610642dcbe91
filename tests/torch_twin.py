"""The benchmark's peer: the project's model and optimizers in PyTorch.

PyTorch as fast as its documented features make it, for the same work: fused
qkv, scaled_dot_product_attention with grouped heads, torch.compile of model
and Muon, fused AdamW, Muon batched over same-shaped matrices, bf16 autocast
on CUDA, no host synchronization inside a step, batches already on the device.

  torch_twin.py --device cuda --compile --d_model 512 --batch 96 --json
  torch_twin.py --reference tests/reference/gqa.safetensors

The first trains on random tokens and prints tokens/s (median of --steps
optimizer steps after --warmup), peak memory, loss. The second holds this file
against tests/reference: loss and gradients of a model, or the optimizer's 20
steps; exit 1 beyond the limits.
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
from torch.nn.attention import SDPBackend, sdpa_kernel

import torch_twin_model as twin

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION,
            "cudnn": SDPBackend.CUDNN_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION,
            "math": SDPBackend.MATH}
GRAPHED = ("reduce-overhead", "max-autotune")  # modes that use CUDA graphs


# --- training --------------------------------------------------------------

class Trainer:
    def __init__(self, c, total_steps):
        self.c = c
        torch.manual_seed(c.seed)
        self.model = twin.Model(c).to(c.device)
        self.optimizer = twin.Optimizer(self.model, total_steps, c.compile,
                                        c.compile and c.mode in GRAPHED)
        self.forward = self.model
        if c.compile:
            self.forward = torch.compile(self.model, mode=c.mode,
                                         dynamic=False,
                                         fullgraph=c.loss == "full")

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


def wait_for_turn(trainer, batches, c):
    """Say that all is compiled, wait for a line of input, warm up again.
    Memory that is only cached goes to whoever has the turn until then."""
    if c.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    print("ready", flush=True)
    sys.stdin.readline()
    if c.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            trainer.step(c.warmup, batches)


def benchmark(c):
    """Train and measure; gives the result as a dict."""
    trainer = Trainer(c, c.warmup + c.steps)
    batches = random_batches(c)
    started = time.perf_counter()
    for t in range(c.warmup):
        first_loss = trainer.step(t, batches)
        if t == 0:
            first = (first_loss.item(), time.perf_counter() - started)
    if c.gate:
        wait_for_turn(trainer, batches, c)
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
    add("--gate", action="store_true", help="after the warm-up print ready "
        "and wait for a line of input before timing")
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
        twin.MATRIX_DTYPE[0] = torch.bfloat16
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
