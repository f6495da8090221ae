"""The Swagger page, with its script and style served from here: it works without the internet."""

import re
from base64 import b64encode
from hashlib import sha256
from importlib import resources
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

ASSETS = "/docs/assets"

INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def install(app: FastAPI, root_path: str = "") -> None:
    """Show `app`'s API document on `/docs`; browsers find the app below `root_path`."""
    assets = root_path + ASSETS
    page = get_swagger_ui_html(
        openapi_url=f"{root_path}/openapi.json",
        title=app.title,
        swagger_js_url=f"{assets}/swagger-ui-bundle.js",
        swagger_css_url=f"{assets}/swagger-ui.css",
        swagger_favicon_url=f"{assets}/favicon-32x32.png",
        swagger_ui_parameters={"persistAuthorization": True, "tryItOutEnabled": True},
    )

    page.headers.update(_security_headers(bytes(page.body)))

    async def docs() -> HTMLResponse:
        return page

    app.add_api_route("/docs", docs, include_in_schema=False)
    # Only the package's files are used, and its Python code is not imported.
    files: Any = resources.files("fastapi_swagger") / "resources"
    app.mount(ASSETS, StaticFiles(directory=str(files)), name="docs-assets")


def _security_headers(page: bytes) -> dict[str, str]:
    """Load nothing from other origins, run no foreign inline script, and appear in no frame."""
    hashes = [b64encode(sha256(script).digest()).decode() for script in INLINE.findall(page)]
    scripts = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return {
        "Content-Security-Policy": f"default-src 'self'; script-src 'self' {scripts}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
