"""Hostile requests: what broken, careless or malicious clients send, drawn with a seed.

Images with flipped bits, cut, spliced, or claiming impossible sizes; forms and JSON that are not
what they say; HTTP that is not HTTP. Each is bytes for a socket, since no HTTP library would send
them. Tests send a fixed number of them, the load test sends them without end beside good clients.
"""

import contextlib
import io
import json
import random
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from PIL import Image

from loadtests.multipart import BOUNDARY, FORM_TYPE, file, form, text

Kind = Literal["image", "form", "JSON", "HTTP"]
Ending = Literal["answer", "hang up", "reset"]
Mutation = Callable[[bytes, random.Random], bytes]
Headers = dict[bytes, bytes]

FORM_HEADERS: Headers = {b"Content-Type": FORM_TYPE}
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Numbers at which decoders overflow, underflow or allocate too much."""
TIMEOUT = 30.0
"""Seconds in which an answer must begin."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One request, as the bytes of head and body."""

    kind: Kind
    name: str
    wire: bytes
    ending: Ending = "answer"
    """Whether the server owes an answer, or the client leaves half-way."""


def attacks(seed: int = 0) -> Iterator[Attack]:
    """Attacks without end; the same seed gives the same ones."""
    draw = random.Random(seed)
    kinds = (_image_attack, _form_attack, _json_attack, _http_attack)
    while True:
        (kind,) = draw.choices(kinds, (12, 4, 3, 3))
        yield kind(draw)


def send(host: str, port: int, attack: Attack, *, pieces: int = 1, pause: float = 0.0) -> bytes:
    """The raw answer; empty where none is waited for or the server hung up without one.

    `pieces` with a `pause` (seconds) after each make a slow client. Raises `TimeoutError` where an
    answer is owed and does not come.
    """
    answer = b""
    size = -(-len(attack.wire) // pieces)
    with socket.create_connection((host, port), TIMEOUT) as connection:
        # A server may refuse and hang up before it has read everything.
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(attack.wire), size):
                connection.sendall(attack.wire[start : start + size])
                time.sleep(pause)
        if attack.ending == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if attack.ending == "answer":
            with contextlib.suppress(ConnectionError):
                while chunk := connection.recv(65_536):
                    answer += chunk
    return answer


def status(answer: bytes) -> int | None:
    """The status of a raw answer; None where there is none."""
    head = answer[:12].split(b" ")
    return int(head[1]) if len(head) == 2 and head[1].isdigit() else None


def fault(attack: Attack, answer: bytes) -> str | None:
    """What is wrong with the raw answer to an attack, if anything: a 5xx but 503, or none."""
    code = status(answer)
    if code is None:
        return "hung up without an answer" if attack.ending == "answer" else None
    return f"{code}: {answer[-300:]!r}" if code >= 500 and code != 503 else None


# Images.


@cache
def pictures() -> dict[str, bytes]:
    """One small picture in each format and in each of the ways that decode differently."""
    noise = Image.frombytes("RGB", (48, 40), random.Random(0).randbytes(48 * 40 * 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    wanted: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "jpeg": (noise, "JPEG", {}),
        "jpeg progressive": (noise, "JPEG", {"progressive": True}),
        "jpeg exif": (noise, "JPEG", {"exif": exif}),
        "jpeg cmyk": (noise.convert("CMYK"), "JPEG", {}),
        "png": (noise, "PNG", {}),
        "png alpha": (noise.convert("RGBA"), "PNG", {"exif": exif}),
        "png palette": (noise.quantize(16), "PNG", {"transparency": 3}),
        "png 16 bit": (noise.convert("I;16"), "PNG", {}),
        "webp": (noise, "WEBP", {}),
        "webp lossless": (noise.convert("RGBA"), "WEBP", {"lossless": True, "exif": exif}),
        "bmp": (noise, "BMP", {}),
        "bmp palette": (noise.quantize(16), "BMP", {}),
        "gif": (noise, "GIF", {}),
        "gif animated": (noise, "GIF", {"save_all": True, "append_images": [noise.rotate(90)]}),
        "tiff": (noise, "TIFF", {}),
        "tiff lzw": (noise, "TIFF", {"compression": "tiff_lzw"}),
        "tiff deflate": (noise, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff jpeg": (noise, "TIFF", {"compression": "jpeg"}),
        "tiff float": (noise.convert("F"), "TIFF", {}),
    }
    files = {}
    for name, (image, kind, options) in wanted.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    return files


def flip_bits(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 4, 32, 256))):
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def cut_short(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def double_a_chunk(data: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.choices(range(len(data)), k=2))
    return data[:end] * draw.choice((1, 1, 20)) + data[start:]


def drop_a_chunk(data: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.choices(range(len(data)), k=2))
    return data[:start] + data[end:]


def edit_header(data: bytes, draw: random.Random) -> bytes:
    return _put_extremes(data, draw, min(64, len(data)))


def edit_anywhere(data: bytes, draw: random.Random) -> bytes:
    return _put_extremes(data, draw, len(data))


def splice(data: bytes, draw: random.Random) -> bytes:
    other = draw.choice(list(pictures().values()))
    return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]


def append_garbage(data: bytes, draw: random.Random) -> bytes:
    return data + draw.randbytes(draw.choice((1, 1000, 20_000)))


def spoil_exif(data: bytes, draw: random.Random) -> bytes:
    """Lay a damaged EXIF block into a JPEG or PNG; other formats are returned as they are."""
    exif = Image.Exif()
    exif[0x0112] = draw.randrange(12)
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    block = draw.choice((flip_bits, cut_short, edit_anywhere))(exif.tobytes(), draw)
    if data.startswith(b"\xff\xd8"):
        segment = b"Exif\0\0" + block.removeprefix(b"Exif\0\0")
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    if data.startswith(b"\x89PNG"):
        return data[:33] + _png_chunk(b"eXIf", block.removeprefix(b"Exif\0\0")) + data[33:]
    return data


def claim_a_size(data: bytes, draw: random.Random) -> bytes:
    """Write another width and height into the header, with a right checksum where there is one."""
    width, height = draw.choices(EXTREMES, k=2)
    out = bytearray(data)
    if data.startswith(b"\x89PNG"):
        header = struct.pack(">II", width, height) + data[24:29]
        return data[:8] + _png_chunk(b"IHDR", header) + data[33:]
    if data.startswith(b"\xff\xd8"):
        frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        struct.pack_into(">HH", out, frame + 5, height & 0xFFFF, width & 0xFFFF)
    elif data.startswith(b"GIF"):
        struct.pack_into("<HH", out, 6, width & 0xFFFF, height & 0xFFFF)
    elif data.startswith(b"BM"):
        struct.pack_into("<II", out, 18, width, height)
    elif data.startswith(b"RIFF"):
        struct.pack_into("<I", out, draw.choice((21, 24, 26)), width)
    elif data.startswith(b"II"):
        (directory,) = struct.unpack_from("<I", data, 4)
        for entry in range(struct.unpack_from("<H", data, directory)[0]):
            at = directory + 2 + 12 * entry
            if data[at : at + 2] in (b"\x00\x01", b"\x01\x01"):  # ImageWidth, ImageLength
                struct.pack_into("<HHII", out, at, data[at] + 256, 4, 1, draw.choice(EXTREMES))
    return bytes(out)


def inflate_text(data: bytes, draw: random.Random) -> bytes:
    """A PNG that carries megabytes of compressed text or colour profile; others as they are."""
    if not data.startswith(b"\x89PNG"):
        return data
    kind, head = draw.choice(((b"zTXt", b"k\0\0"), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0")))
    chunk = _png_chunk(kind, head + zlib.compress(bytes(16_000_000), 1))
    return data[:33] + chunk * draw.choice((1, 4)) + data[33:]


def repeat_a_scan(data: bytes, draw: random.Random) -> bytes:
    """A JPEG whose last scan comes again and again; others as they are."""
    last = data.rfind(b"\xff\xda")
    if not data.startswith(b"\xff\xd8") or last < 0:
        return data
    return data[:-2] + data[last:-2] * draw.choice((3, 60, 300)) + data[-2:]


MUTATIONS: dict[Mutation, int] = {
    flip_bits: 6,
    cut_short: 4,
    double_a_chunk: 3,
    drop_a_chunk: 3,
    edit_header: 5,
    edit_anywhere: 4,
    splice: 2,
    append_garbage: 1,
    spoil_exif: 4,
    claim_a_size: 5,
    inflate_text: 1,
    repeat_a_scan: 2,
}
"""Each with how often it is drawn."""


def mutated(draw: random.Random) -> tuple[str, bytes]:
    """A damaged picture, and what was done to it."""
    name, data = draw.choice(list(pictures().items()))
    done = []
    for mutation in draw.choices(
        list(MUTATIONS), list(MUTATIONS.values()), k=draw.choice((1, 1, 2))
    ):
        # The one before may have destroyed what this one looks for.
        with contextlib.suppress(struct.error):
            data = mutation(data, draw) or b"\0"
        done.append(mutation.__name__)
    return f"{name}: {', '.join(done)}", data


def _image_attack(draw: random.Random) -> Attack:
    name, data = mutated(draw)
    return Attack("image", name, _request(b"/predict", FORM_HEADERS, form([file(data)])))


def _put_extremes(data: bytes, draw: random.Random, end: int) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 3))):
        shape = draw.choice(("<H", ">H", "<I", ">I"))
        size = struct.calcsize(shape)
        if end >= size:
            value = draw.choice(EXTREMES) & (256**size - 1)
            struct.pack_into(shape, out, draw.randrange(end - size + 1), value)
    return bytes(out)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# Forms.


def _form_attack(draw: random.Random) -> Attack:
    picture = draw.choice(list(pictures().values()))
    good = form([file(picture)])
    long = b"x" * draw.choice((300, 5_000, 70_000))
    odd = draw.choice((b"\0", b"\xff\xfe", b"\r", b'"', b"\\", "ä\u202e".encode(), b"%00", b";"))
    name, body = draw.choice(
        (
            ("no last boundary", good[: good.rindex(b"\r\n--")]),
            ("no first boundary", good[len(BOUNDARY) + 4 :]),
            ("another boundary", form([file(picture)], b"another")),
            ("boundary in the content", form([file(good)])),
            ("bare line feeds", good.replace(b"\r\n", b"\n")),
            ("flipped bits", flip_bits(good, draw)),
            ("cut", cut_short(good, draw)),
            ("no parts", form([])),
            ("nothing", b""),
            ("no disposition", form([b"Content-Type: image/png\r\n\r\n" + picture])),
            ("no name", form([file(picture, b'filename="a.jpg"')])),
            ("empty name", form([file(picture, b'name=""; filename=""')])),
            ("giant name", form([file(picture, b'name="' + long + b'"; filename="a"')])),
            ("giant file name", form([file(picture, b'name="images"; filename="' + long + b'"')])),
            ("odd name", form([file(picture, b'name="' + odd + b'"; filename="a"')])),
            ("odd file name", form([file(picture, b'name="images"; filename="' + odd + b'"')])),
            ("coded file name", form([file(picture, b"name=images; filename*=x''%ff%00" + odd)])),
            ("path as file name", form([file(picture, b'name="images"; filename="../../x"')])),
            ("nested quotes", form([file(picture, b'name="images"; filename="a"b"c\\""d"')])),
            ("two names", form([file(picture, b'name="images"; name="model"; filename="a"')])),
            ("field twice", form([file(picture), text(b"top_k", b"1"), text(b"top_k", b"2")])),
            ("odd number", form([file(picture), text(b"top_k", odd)])),
            ("giant number", form([file(picture), text(b"top_k", b"9" * len(long))])),
            ("no number", form([file(picture), text(b"threshold", b"NaN")])),
            ("infinite", form([file(picture), text(b"threshold", b"-Infinity")])),
            ("odd model", form([file(picture), text(b"model", odd)])),
            ("giant model", form([file(picture), text(b"model", long)])),
            ("giant text", form([file(picture), text(b"model", long * 30)])),
            ("path as model", form([file(picture), text(b"model", b"../../../etc/passwd")])),
            ("odd charset", form([text(b"_charset_", odd), file(picture)])),
            ("many files", form([file(b"x")] * draw.choice((200, 300)))),
            ("many fields", form([text(b"f%d" % number, b"") for number in range(40)])),
            ("giant part header", form([b"X-Header: " + long + b"\r\n" + file(picture)])),
            ("many part headers", form([b"X-Header: x\r\n" * 2000 + file(picture)])),
            ("coded part", form([b"Content-Transfer-Encoding: base64\r\n" + file(picture)])),
            ("folded header", form([file(picture, b'name="images";\r\n filename="a"')])),
        )
    )  # fmt: skip
    return Attack("form", name, _request(b"/predict", FORM_HEADERS, body))


# JSON.

_JSON_ROUTES = (
    b"/fit", b"/set", b"/info", b"/remove", b"/remove_all", b"/list", b"/job", b"/cancel",
    b"/eda", b"/datasets", b"/jobs", b"/rollback",
)  # fmt: skip
_FIELDS = ("tag", "name", "id", "dataset", "recipe", "overrides", "time_limit", "wait", "seed")


def _json_attack(draw: random.Random) -> Attack:
    deep = draw.choice((100, 5_000, 100_000))
    value: object = draw.choice(
        (
            None, True, -1, 1e308, 10**400, "", "x" * 100_000, "\0", "\ud800", "../..", "a:*",
            "{}", [], {}, [[]], {"preset": "cnn", "epochs": 10**30}, {"kind": "\0"}, {"": ""},
            {"a" + ".b" * 1000: 1},
            {"preset": "linear-probe", "features": {"weights": "/etc/passwd"}},
        )
    )  # fmt: skip
    right = json.dumps(dict.fromkeys(draw.sample(_FIELDS, draw.randint(1, 4)), value))
    name, body = draw.choice(
        (
            ("odd value", right.encode()),
            ("cut", right.encode()[:-2]),
            ("flipped bits", flip_bits(right.encode(), draw)),
            ("deep list", b"[" * deep),
            ("deep object", b'{"tag":' * deep + b"1" + b"}" * deep),
            ("not a number", b'{"tag": NaN, "seed": Infinity}'),
            ("key twice", b'{"tag": "a", "tag": 5}'),
            ("not UTF-8", b'{"tag": "\xff\xfe\x80"}'),
            ("UTF-16", right.encode("utf-16")),
            ("byte order mark", right.encode("utf-8-sig")),
            ("garbage", draw.randbytes(300) or b"x"),
        )
    )
    headers = {b"Content-Type": b"application/json"}
    return Attack("JSON", name, _request(draw.choice(_JSON_ROUTES), headers, body))


# HTTP.


def _http_attack(draw: random.Random) -> Attack:
    """Wrong types, wrong lengths, and connections that end half-way."""
    body = form([file(draw.choice(list(pictures().values())))])
    typed = FORM_HEADERS
    cut = draw.randrange(len(body))
    long = b"x" * draw.choice((1_000, 50_000, 200_000))
    content_type = draw.choice(
        (
            b"", b"text/plain", b"multipart/form-data", b"multipart/form-data; boundary=",
            b'multipart/form-data; boundary="' + BOUNDARY, b"multipart/mixed; boundary=x",
            b"multipart/form-data; boundary=" + long, b"application/vnd.bentoml+pickle",
            b"multipart/form-data; charset=\xff\xfe; boundary=" + BOUNDARY,
            b"multipart/form-data; charset=utf-7; boundary=" + BOUNDARY, b"\xff\xfe\xfd", b";;;",
        )
    )  # fmt: skip
    unfinished: Ending = draw.choice(("hang up", "reset"))
    choices: tuple[tuple[str, bytes, Ending], ...] = (
        ("type", _request(b"/predict", {b"Content-Type": content_type}, body), "answer"),
        ("no length", _head(b"/predict", typed) + body, "answer"),
        ("length too small", _head(b"/predict", typed | _length(cut)) + body, "answer"),
        ("negative length", _head(b"/predict", typed | _length(-1)) + body, "answer"),
        ("no number as length", _head(b"/predict", typed | {b"Content-Length": b"abc"}), "answer"),
        ("length too large", _head(b"/predict", typed | _length(2**40)) + body, "answer"),
        ("length and chunks", _request(b"/predict", typed | _CHUNKED, body), "answer"),
        ("bad chunk", _head(b"/predict", typed | _CHUNKED) + b"zz\r\n" + body, "answer"),
        (
            "coded body",
            _request(b"/predict", typed | {b"Content-Encoding": b"gzip"}, body),
            "answer",
        ),
        ("giant header", _request(b"/predict", typed | {b"X-Header": long}, body), "answer"),
        ("null in header", _request(b"/predict", typed | {b"X-Header": b"a\0b"}, body), "answer"),
        ("odd host", _request(b"/predict", typed | {b"Host": b"\xff[::"}, body), "answer"),
        ("odd path", _request(b"/predict/%00%ff/../..?" + long[:900], typed, body), "answer"),
        ("unknown method", b"BREW /predict HTTP/1.1\r\n\r\n", "answer"),
        ("unknown version", b"POST /predict HTTP/9.9\r\n\r\n", "answer"),
        ("no HTTP", draw.randbytes(200) + b"\r\n\r\n", "answer"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(500), unfinished),
        ("head cut", _request(b"/predict", typed, body)[: draw.randint(1, 80)], unfinished),
        ("body cut", _head(b"/predict", typed | _length(len(body))) + body[:cut], unfinished),
        ("answer not read", _request(b"/predict", typed, body), unfinished),
        ("chunk cut", _head(b"/predict", typed | _CHUNKED) + b"ffff\r\n" + body, unfinished),
    )
    name, wire, ending = draw.choice(choices)
    return Attack("HTTP", name, wire, ending)


_CHUNKED = {b"Transfer-Encoding": b"chunked"}


def _length(count: int) -> Headers:
    return {b"Content-Length": b"%d" % count}


def _head(path: bytes, headers: Headers) -> bytes:
    """The connection ends with the answer, so that reading to its end reads the answer."""
    all_headers = {b"Host": b"localhost", b"Connection": b"close"} | headers
    lines = [name + b": " + value for name, value in all_headers.items()]
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", *lines]) + b"\r\n\r\n"


def _request(path: bytes, headers: Headers, body: bytes) -> bytes:
    return _head(path, headers | _length(len(body))) + body
