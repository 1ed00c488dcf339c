"""Reads what a request holds: images with their fields, a form, or a small JSON object."""

from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from lifelong.data.naming import shown
from lifelong.errors import one_line
from lifelong.opening import parse_json
from lifelong.serving.limits import Limits


async def images_of(request: Request, limits: Limits, names: tuple[str, ...]) -> tuple[list[bytes], dict[str, str]]:
    """Read the images of a request, and its other fields; names of files are not looked at.

    Args:
        request: with parts `image` of a form, or one image as its body.
        limits: how much may be sent.
        names: of the fields.

    Raises:
        HTTPException: it holds something else.
    """
    kind = _kind(request)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [await request.body()], {name: request.query_params[name] for name in names if name in request.query_params}
    if kind != "multipart/form-data":
        raise HTTPException(415, "send images as parts 'image' of multipart/form-data, or one as the body with its type (image/png)")
    form = await form_of(request, limits)
    try:
        wrong = next((key for key, value in form.multi_items() if (key != "image") == isinstance(value, UploadFile)), None)
        if wrong is not None:
            raise HTTPException(400, f"part {shown(wrong[:40])!r}: images are files of parts named 'image', and nothing else is")
        images = [await part.read() for part in form.getlist("image") if isinstance(part, UploadFile)]
    finally:
        await form.close()
    if not images:
        raise HTTPException(400, "no image; send at least one file as part 'image'")
    return images, {name: str(form[name]) for name in names if name in form}


def length_of(request: Request, limits: Limits) -> int:
    """Return the bytes that a request says it sends; the most that it may, if it does not say."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else limits.request_bytes


async def form_of(request: Request, limits: Limits) -> FormData:
    """Read a form.

    Raises:
        HTTPException: it is none, or too large.
    """
    try:
        return await request.form(max_files=limits.images, max_fields=8, max_part_size=limits.small_bytes)
    except HTTPException as error:
        raise HTTPException(error.status_code, one_line(str(error.detail))) from error


# `Any`: whatever JSON can say, of the wanted types.
async def json_of(request: Request, limits: Limits, wanted: dict[str, type]) -> dict[str, Any]:
    """Read a small JSON object with exactly the wanted keys, and values of their types.

    Raises:
        HTTPException: it is something else.
    """
    if _kind(request) != "application/json":
        raise HTTPException(415, "send JSON, with content-type: application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > limits.small_bytes:
            raise HTTPException(413, f"more than {limits.small_bytes // 1024} kB of JSON")
    try:
        told = parse_json(body.decode("utf-8"))
    except ValueError:
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(told, dict) or told.keys() != wanted.keys() or any(type(told[key]) is not kind for key, kind in wanted.items()):
        raise HTTPException(400, f"send exactly {', '.join(f'{key}: {kind.__name__}' for key, kind in wanted.items())}")
    return told


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
