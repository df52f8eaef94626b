"""Files for a browser: the page, the documentation of the API, and pictures of products."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from mufin.serving.web.images import media_type
from mufin.serving.web.refusals import Refusal

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
FOR_EVER = "public, max-age=31536000, immutable"
DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>MUFIN API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({url: "/docs/openapi.json", dom_id: "#ui", validatorUrl: null});
"""
# Swagger UI writes style attributes, and has its icons as data URLs
DOCS_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'"
)
DOCS_FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-16x16.png", "favicon-32x32.png")


def page_file(name: str, request: Request) -> Response:
    """A file of the page; only names of files that are there lead to one."""
    known = {path.name: path for path in PAGE.glob("*") if path.is_file()}
    if name not in known:
        what = "the page is not part of this installation" if name == "index.html" else "no file"
        raise Refusal(404, f"{what}; GET /docs describes the API")
    return _file(known[name].read_bytes(), known[name].suffix, request)


def docs_file(name: str, request: Request) -> Response:
    """A file of Swagger UI, from its package; nothing comes from a network."""
    policy = {"Content-Security-Policy": DOCS_POLICY}
    if name == "":
        return _file(DOCS.encode(), ".html", request, policy)
    if name == "start.js":
        return _file(START.encode(), ".js", request, policy)
    if name not in DOCS_FILES:
        raise Refusal(404, "no file; GET /docs describes the API")
    try:
        from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]
    except ImportError:
        raise Refusal(404, "the package swagger-ui-bundle is not installed; install it") from None
    path = Path(swagger_ui_path) / name
    return _file(path.read_bytes(), path.suffix, request, policy)


def picture(content: bytes, request: Request) -> Response:
    """A picture of a product, which may come from anyone: no script in it may run."""
    headers = {
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": FOR_EVER,
        "Content-Disposition": "inline",
    }
    return _tagged(content, media_type(content), request, headers)


def _file(
    content: bytes, suffix: str, request: Request, headers: dict[str, str] | None = None
) -> Response:
    kind = TYPES.get(suffix, "application/octet-stream")
    return _tagged(content, kind, request, {"Cache-Control": "no-cache"} | (headers or {}))


def _tagged(content: bytes, kind: str, request: Request, headers: dict[str, str]) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = headers | {"ETag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=kind)
