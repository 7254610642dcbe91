"""Writes the reference files beside it: models, optimizer steps, schedule.

  python3 generate.py            write all files
  python3 generate.py --check    compute all again, compare with what is there

Computed in float64 from parameters that float32 holds exactly, stored as
float32; what each file holds is said in README.md.
"""
import argparse
import json
import math
import pathlib
import sys

import numpy
import safetensors
import safetensors.numpy
import torch

import model
import optimizer

HERE = pathlib.Path(__file__).parent
MHA = model.Config(vocab=61, d_model=24, n_layers=2, n_heads=3, n_kv_heads=3,
                   d_ff=40, batch=2, seq=13, embedding_scale=24 ** 0.5)
GQA = model.Config(**{**vars(MHA), "n_kv_heads": 1})
LLAMA = model.Config(vocab=53, d_model=32, n_layers=2, n_heads=4,
                     n_kv_heads=2, d_ff=44, batch=2, seq=11, tied=False,
                     gated=True, norm_eps=1e-5,
                     rope=model.Rope(base=500000.0, fraction=1.0,
                                     inclusive=False, sense=1))
TRAINED = model.Config(vocab=96, d_model=32, n_layers=2, n_heads=4,
                       n_kv_heads=4, d_ff=64, batch=4, seq=16,
                       embedding_scale=32 ** 0.5)
STEPS = 20
SCHEDULES = [(1, 0.05), (7, 0.05), (10, 0.05), (20, 0.05), (30, 0.05),
             (40, 0.05), (20, 0.25), (20, 0.0), (1250, 0.05)]


def random_parameters(c, generator, std, norm):
    """Weights N(0, std), norms N(norm, 0.2): values of float32, as float64."""
    parameters = {}
    for name, shape in model.parameter_shapes(c).items():
        w = torch.randn(shape, generator=generator, dtype=torch.float64)
        w = norm + 0.2 * w if len(shape) == 1 else std * w
        parameters[name] = w.float().double()
    return parameters


def random_tokens(c, generator, batches):
    """Tokens [batches, B, T + 1] in which each depends on the one before.

    next = (5 previous + 7 + noise) mod V, noise in 0 ... 2: something that
    20 steps begin to learn, so that a wrong update shows in the loss.
    """
    size = (batches, c.batch, c.seq + 1)
    noise = torch.randint(0, 3, size, generator=generator)
    tokens = torch.randint(0, c.vocab, size, generator=generator)
    for t in range(1, c.seq + 1):
        tokens[..., t] = (5 * tokens[..., t - 1] + 7 + noise[..., t]) % c.vocab
    return tokens


def gradients(c, parameters, ids, targets):
    """(loss, {name: gradient}) at the parameters."""
    leaves = {n: p.clone().requires_grad_() for n, p in parameters.items()}
    value = model.loss(c, leaves, ids, targets)
    value.backward()
    return value.item(), {n: p.grad for n, p in leaves.items()}


def f32(tensor):
    return tensor.detach().numpy().astype(numpy.float32)


def i32(tensor):
    return tensor.numpy().astype(numpy.int32)


def model_file(c, seed):
    """Tensors and metadata of one model's reference file."""
    generator = torch.Generator().manual_seed(seed)
    parameters = random_parameters(c, generator, std=0.25, norm=1.0)
    tokens = random_tokens(c, generator, 1)[0]
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    value, grads = gradients(c, parameters, ids, targets)
    tensors = {"ids": i32(ids), "targets": i32(targets),
               "loss": numpy.array([value], numpy.float32),
               "logits": f32(model.logits(c, parameters, ids))}
    for name in parameters:
        tensors[name] = f32(parameters[name])
        tensors["grad." + name] = f32(grads[name])
    return tensors, {"config": json.dumps(c.as_dict()), "loss": repr(value)}


def train(c, parameters, tokens, dtype):
    """STEPS optimizer steps; gives losses, norms, factors and parameters.

    "parameters" lists them after each step.
    """
    parameters = {n: p.to(dtype, copy=True) for n, p in parameters.items()}
    steps = optimizer.Optimizer(parameters, STEPS)
    history = {"losses": [], "norms": [], "factors": [], "parameters": []}
    for t in range(STEPS):
        ids, targets = tokens[t, :, :-1], tokens[t, :, 1:]
        value, grads = gradients(c, parameters, ids, targets)
        factor, norm = steps.step(t, grads)
        history["losses"].append(value)
        history["norms"].append(norm)
        history["factors"].append(factor)
        history["parameters"].append(
            {n: p.clone() for n, p in parameters.items()})
    return history


def optimizer_file(c, seed):
    """Tensors and metadata of the optimizer's reference file.

    The norms are drawn around 0.75 so that the gradients' norm crosses the
    clipping threshold: some steps are clipped, some are not.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = random_parameters(c, generator, std=0.1, norm=0.75)
    tokens = random_tokens(c, generator, STEPS)
    history = train(c, parameters, tokens, torch.float64)
    tensors = {
        "ids": i32(tokens[:, :, :-1]), "targets": i32(tokens[:, :, 1:]),
        "losses": numpy.array(history["losses"], numpy.float32),
        "grad_norms": numpy.array(history["norms"], numpy.float32),
        "lr_factors": numpy.array(history["factors"], numpy.float32)}
    for name in parameters:
        tensors[name] = f32(parameters[name])
        tensors["first." + name] = f32(history["parameters"][0][name])
        tensors["final." + name] = f32(history["parameters"][-1][name])
    settings = {"muon": optimizer.MUON, "adamw": optimizer.ADAMW,
                "schedule": {**optimizer.SCHEDULE, "steps": STEPS},
                "clip": optimizer.CLIP}
    return tensors, {"config": json.dumps(c.as_dict()),
                     "optimizer": json.dumps(settings),
                     "losses": json.dumps(history["losses"]),
                     "grad_norms": json.dumps(history["norms"]),
                     "lr_factors": json.dumps(history["factors"])}


def schedule_points(total):
    """Steps worth storing: all of a short run, else the ends and a grid."""
    if total <= 40:
        return list(range(total))
    return sorted({0, 1, total - 2, total - 1, *range(50, total, 50)}
                  | set(range(58, 68)))


def schedule_file():
    """The learning rate factor of several schedules, as one JSON text."""
    rows = []
    for total, warmup in SCHEDULES:
        steps = schedule_points(total)
        factors = [optimizer.schedule(t, total, warmup, 0.1) for t in steps]
        rows.append({"total": total, "warmup": warmup, "final": 0.1,
                     "steps": steps, "factors": factors})
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def files():
    """File name -> (tensors, metadata)."""
    return {"mha.safetensors": model_file(MHA, 1),
            "gqa.safetensors": model_file(GQA, 2),
            "llama.safetensors": model_file(LLAMA, 3),
            "optimizer.safetensors": optimizer_file(TRAINED, 4)}


def relative(a, b):
    a, b = a.astype(numpy.float64), b.astype(numpy.float64)
    return float(numpy.linalg.norm(a - b) / (numpy.linalg.norm(b) + 1e-30))


def compare(name, tensors):
    """Largest relative difference between `tensors` and the stored file."""
    stored = safetensors.numpy.load_file(HERE / name)
    if stored.keys() != tensors.keys():
        return math.inf
    return max(relative(tensors[key], stored[key]) for key in stored)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    worst = 0.0
    for name, (tensors, metadata) in files().items():
        if args.check:
            difference = compare(name, tensors)
            worst = max(worst, difference)
            print(f"{name}: largest relative difference {difference:.2e}")
        else:
            safetensors.numpy.save_file(tensors, HERE / name, metadata)
            (HERE / name).chmod(0o644)
            print(f"{name}: {(HERE / name).stat().st_size} bytes,",
                  "loss" if "loss" in metadata else "losses",
                  metadata.get("loss", metadata.get("losses")))
    if not args.check:
        (HERE / "schedule.json").write_text(schedule_file())
    elif (HERE / "schedule.json").read_text() != schedule_file():
        print("schedule.json differs")
        worst = math.inf
    return worst > 1e-6


if __name__ == "__main__":
    sys.exit(main())
