"""What an event file holds, as JSON: a list of [step, tag, value] in order.

  python3 tensorboard_reader.py FILE|FOLDER own|tensorboard

`own` reads the bytes by the published formats (TFRecord framing, CRC-32C bit by
bit, protocol-buffer wire format) and shares nothing with the writer;
`tensorboard` asks TensorBoard itself. Both fail on what is damaged.
"""
import json
import struct
import sys


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        for k in range(8):
            bit = (crc ^ byte >> k) & 1
            crc = crc >> 1 ^ (0x82F63B78 if bit else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    at = 0
    while at < len(data):
        length, check = struct.unpack_from("<QI", data, at)
        assert check == masked(data[at:at + 8]), "length's CRC at %d" % at
        body = data[at + 12:at + 12 + length]
        check, = struct.unpack_from("<I", data, at + 12 + length)
        assert check == masked(body), "CRC at %d" % at
        yield body
        at += 16 + length


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(key & 7)
            if size is None:
                assert key & 7 == 2, "wire type"
                size, at = varint(data, at)
            value, at = data[at:at + size], at + size
            assert len(value) == size, "cut short"
        yield key >> 3, value


def own(path):
    out, last = [], 0.0
    for i, record in enumerate(records(open(path, "rb").read())):
        event = dict(fields(record))
        time, = struct.unpack("<d", event[1])
        assert time >= last > 1e9 or i == 0, "times go back"
        last = time
        if i == 0:
            assert event[3] == b"brain.Event:2", "version"
            continue
        for number, value in fields(event[5]):
            parts = dict(fields(value))
            assert number == 1 and set(parts) == {1, 2}
            out.append([event[2], parts[1].decode(),
                        struct.unpack("<f", parts[2])[0]])
    return out


def tensorboard(folder):
    from tensorboard.backend.event_processing import event_accumulator
    board = event_accumulator.EventAccumulator(
        folder, size_guidance={event_accumulator.SCALARS: 0})
    board.Reload()
    out = [[e.step, tag, e.value] for tag in board.Tags()["scalars"]
           for e in board.Scalars(tag)]
    return out


print(json.dumps({"own": own, "tensorboard": tensorboard}[sys.argv[2]](
    sys.argv[1])))
