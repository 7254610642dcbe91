"""PyTorch's attention at the shapes of test_attention's bench: one line a
shape and backend, times in microseconds, rates in TFLOP/s counted as there."""
import statistics
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def median_us(f):
    times = []
    for i in range(15):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        start.record()
        f()
        end.record()
        end.synchronize()
        if i >= 4:
            times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times)


def bench(backend, word, B, H, p):
    T, D = 512, 64
    qkv = torch.randn(B, T, 3, H, D, device="cuda", dtype=torch.bfloat16,
                      requires_grad=True)
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    flops = 2.0 * B * H * T * T * D
    with sdpa_kernel(backend):
        run = lambda: F.scaled_dot_product_attention(
            q, k, v, dropout_p=p, is_causal=True)
        forward = median_us(run)
        o = run()
        g = torch.randn_like(o)
        back = lambda: torch.autograd.grad(o, (q, k, v), g, retain_graph=True)
        backward = median_us(back)
    print(f"torch {word:5} B{B:<3} H{H:<3} p{p}  forward {forward:7.1f} us "
          f"{flops / forward * 1e-6:5.0f}  backward {backward:7.1f} us "
          f"{2.5 * flops / backward * 1e-6:5.0f}", flush=True)


for B in (24, 96):
    for H in (8, 12, 16, 20):
        for p in (0.0, 0.1):
            bench(SDPBackend.FLASH_ATTENTION, "flash", B, H, p)
        bench(SDPBackend.CUDNN_ATTENTION, "cudnn", B, H, 0.0)
