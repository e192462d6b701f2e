"""Go to a node or page by name: the palette's answers, and the same for those without a script."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import Blueprint, jsonify, redirect, request
from flask.typing import ResponseReturnValue

from app.core.query import quoted
from app.store import node_list
from app.web.context import read
from app.web.navigation import LINKS, OTHERS

blueprint = Blueprint("go", __name__)

_SHOWN = 12


@blueprint.get("/go")
def go() -> ResponseReturnValue:
    """HTML: straight there when it is clear, else the list. JSON: what there is, best first."""
    text = " ".join(request.args.get("q", "").split())[:200]
    pages = [link for link in (*LINKS, *OTHERS) if text.lower() in link.name.lower()]
    nodes = read(lambda conn: node_list.named(conn, text, _SHOWN)) if text else []
    if request.accept_mimetypes.best == "application/json":
        found = [{"name": link.name, "href": link.path, "kind": "page"} for link in pages]
        found += [{"name": name, "href": f"/nodes/{id}", "kind": "node"} for id, name in nodes]
        return jsonify(found[:_SHOWN])
    exact = [id for id, name in nodes if text in (id, name)]
    if len(exact) == 1 or len(nodes) == 1:
        return redirect(f"/nodes/{(exact or [nodes[0][0]])[0]}")
    if not nodes and len(pages) == 1:
        return redirect(pages[0].path)
    return redirect("/nodes?" + urlencode({"q": quoted(text)}) if text else "/nodes")
