"""Multipart bodies as bytes: built once and sent many times, right ones and wrong ones alike."""

BOUNDARY = b"imgcls-loadtest-boundary"
FORM_TYPE = b"multipart/form-data; boundary=" + BOUNDARY


def file(content: bytes, disposition: bytes = b'name="images"; filename="a.jpg"') -> bytes:
    """A part that is a file."""
    head = b"Content-Disposition: form-data; " + disposition + b"\r\nContent-Type: image/jpeg"
    return head + b"\r\n\r\n" + content


def text(name: bytes, value: bytes) -> bytes:
    """A part that is a text field."""
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value


def form(parts: list[bytes], boundary: bytes = BOUNDARY) -> bytes:
    """A whole body."""
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return body + b"--" + boundary + b"--\r\n"
