"""Golden bytes of the 4-bit formats, from an implementation in numpy.

  python3 nf4_golden.py            write golden.json beside it
  python3 nf4_golden.py --check    compute again, compare with golden.json

Written from the formats' definitions (bitsandbytes NF4 and fp4, blockwise,
high nibble first), sharing no code with the project. All arithmetic is
float32, one rounding an operation; hashes are FNV-1a, 64 bits, over little
endian bytes.
"""
import fractions
import json
import pathlib
import sys

import numpy
from numpy import float32

GOLDEN = pathlib.Path(__file__).parent / "golden.json"


def literals(numbers):
    """Numbers as C reads them with an f behind: their decimal digits rounded
    once. By way of float64 several thresholds, which lie halfway between two
    float32 but for the digits cut off, would go the other way."""
    def literal(number):
        exact = fractions.Fraction(repr(number))
        near = float32(number)
        return min((near, numpy.nextafter(near, float32(-9)),
                    numpy.nextafter(near, float32(9))),
                   key=lambda x: abs(fractions.Fraction(float(x)) - exact))
    return numpy.array([literal(number) for number in numbers], float32)


NF4_CODEBOOK = literals([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
    0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0])
NF4_THRESHOLDS = literals([
    -0.8480964004993439, -0.6106329262256622, -0.4599952697753906,
    -0.33967943489551544, -0.23460740596055984, -0.13791173323988914,
    -0.045525018125772476, 0.03979014977812767, 0.1202552504837513,
    0.2035212516784668, 0.2920137718319893, 0.3893125355243683,
    0.5016634166240692, 0.6427869200706482, 0.8614784181118011])
FP4_MAGNITUDES = literals([
    0, 0.005208333333, 0.66666667, 1, 0.33333333, 0.5, 0.16666667, 0.25])
FP4_THRESHOLDS = literals([
    0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333,
    0.8333333])
FP4_BY_SIZE = numpy.array([0, 1, 6, 7, 4, 5, 2, 3], numpy.uint8)


def fnv1a64(data):
    state = 0xcbf29ce484222325
    for byte in data:
        state = ((state ^ byte) * 0x100000001b3) % 2 ** 64
    return f"{state:016x}"


def golden_input(count=65536):
    """x[i] = (int32(low 32 bits of (i+1) 2654435761) >> 8) / 2^24
    * (1 + (i / 64) mod 7), the product rounded once to float32."""
    i = numpy.arange(count, dtype=numpy.uint64)
    word = ((i + 1) * numpy.uint64(2654435761)).astype(numpy.uint32)
    base = (word.view(numpy.int32) >> 8).astype(float32) / float32(2 ** 24)
    return base * (1 + i // 64 % 7).astype(float32)


def nf4_code(u):
    """Number of thresholds below u; ties go down."""
    return (u[:, None] > NF4_THRESHOLDS).sum(axis=1).astype(numpy.uint8)


def fp4_code(u):
    """Magnitude by thresholds on |u|, bit 3 the sign of u < 0."""
    size = (numpy.abs(u)[:, None] > FP4_THRESHOLDS).sum(axis=1)
    return FP4_BY_SIZE[size] | numpy.where(u < 0, 8, 0).astype(numpy.uint8)


FORMATS = {
    "nf4": {"code": nf4_code, "zero": 7, "values": NF4_CODEBOOK},
    "fp4": {"code": fp4_code, "zero": 0,
            "values": numpy.concatenate((FP4_MAGNITUDES, -FP4_MAGNITUDES))},
}


def quantize(x, block, form):
    """Codes [n] and absmax [blocks] of x [n]; the last block may be short.

    An absmax below 2^-128, whose reciprocal is infinite, is not met here.
    """
    form = FORMATS[form]
    codes = numpy.full(len(x), form["zero"], numpy.uint8)
    absmax = numpy.zeros(-(-len(x) // block), float32)
    for b in range(len(absmax)):
        part = slice(b * block, min(len(x), (b + 1) * block))
        absmax[b] = numpy.abs(x[part]).max()
        if absmax[b] > 0:
            codes[part] = form["code"](x[part] * (float32(1) / absmax[b]))
    return codes, absmax


def pack(codes, form):
    """Two codes a byte, the first in the high nibble; an odd end is padded
    with the code of 0.0, as bitsandbytes does."""
    if len(codes) % 2:
        codes = numpy.append(codes, numpy.uint8(FORMATS[form]["zero"]))
    return (codes[0::2] << 4 | codes[1::2]).tobytes()


def dequantize(codes, absmax, block, form):
    scale = numpy.repeat(absmax, block)[:len(codes)]
    return FORMATS[form]["values"][codes] * scale


def large_case(form):
    x = golden_input()
    codes, absmax = quantize(x, 64, form)
    packed = pack(codes, form)
    values = dequantize(codes, absmax, 64, form)
    return {"packed_head": packed[:16].hex(), "packed": fnv1a64(packed),
            "absmax": fnv1a64(absmax.astype("<f4").tobytes()),
            "absmax_0": float(absmax[0]).hex(),
            "dequantized": fnv1a64(values.astype("<f4").tobytes())}


def small_inputs():
    """Name -> (x, block): the corners, small enough to store whole."""
    x = golden_input(300)
    denormal = x[:40] * float32(2.0 ** -126)
    edges = numpy.concatenate((NF4_THRESHOLDS, float32([1.0])))
    above = numpy.nextafter(NF4_THRESHOLDS, float32(2), dtype=float32)
    magnitudes = numpy.concatenate((FP4_THRESHOLDS, float32([1.0])))
    with_zeros = x[:192].copy()
    with_zeros[64:128] = 0
    return {
        "odd_length": (x[:63], 64), "short_last_block": (x[:131], 64),
        "one_value": (x[:1], 64), "zero_block": (with_zeros, 64),
        "block_32": (x[:96], 32), "block_128": (x[:300], 128),
        "signed_zeros": (float32([0.0, -0.0, 1.0, -1.0, -0.0]), 64),
        "nf4_thresholds": (edges, 64),
        "nf4_above_thresholds": (numpy.append(above, float32(1.0)), 64),
        "fp4_thresholds": (numpy.append(magnitudes, -magnitudes), 64),
        "denormals": (denormal, 64),
    }


def small_case(x, block):
    case = {"block": block, "input": x.astype("<f4").tobytes().hex()}
    for form in FORMATS:
        codes, absmax = quantize(x, block, form)
        values = dequantize(codes, absmax, block, form)
        case[form] = {"packed": pack(codes, form).hex(),
                      "absmax": absmax.astype("<f4").tobytes().hex(),
                      "dequantized": values.astype("<f4").tobytes().hex()}
    return case


def quant_state(rows, cols, dtype):
    """The JSON bitsandbytes stores beside a weight, byte for byte."""
    return json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": dtype,
                       "shape": [rows, cols]})


def golden():
    return {"count": 65536, "block": 64,
            "input": fnv1a64(golden_input().astype("<f4").tobytes()),
            "nf4": large_case("nf4"), "fp4": large_case("fp4"),
            "small": {name: small_case(x, block)
                      for name, (x, block) in small_inputs().items()},
            "quant_state": [
                {"rows": rows, "cols": cols, "dtype": dtype,
                 "json": quant_state(rows, cols, dtype)}
                for rows, cols, dtype in ((512, 2048, "bfloat16"),
                                          (33, 7, "float32"))]}


def main():
    text = json.dumps(golden(), indent=1) + "\n"
    if "--check" not in sys.argv[1:]:
        GOLDEN.write_text(text)
    same = GOLDEN.read_text() == text
    print("golden.json:", "same" if same else "DIFFERS")
    return not same


if __name__ == "__main__":
    sys.exit(main())
