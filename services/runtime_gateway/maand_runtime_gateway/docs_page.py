"""The page at /docs: the OpenAPI document as one plain HTML page, which needs neither a network nor scripts."""

from collections.abc import Iterator
from html import escape
from typing import Any

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
h2{margin-top:2.5rem;border-top:1px solid #ddd;padding-top:1rem}code{background:#f4f4f4;padding:.1rem .3rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0}"""


def render_docs_page(document: dict[str, Any]) -> str:
    """Write the page."""
    info = document["info"]
    return "".join(
        (
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(info['title'])}</title>",
            f"<style>{STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
            f"<p>{escape(info['description'])}</p><p><a href='/openapi.json'>OpenAPI document</a></p>",
            *(
                section
                for path, operations in document["paths"].items()
                for method, operation in operations.items()
                for section in render_operation(method, path, operation)
            ),
        )
    )


def render_operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    """Describe one operation: summary, fields, answers."""
    yield f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}</p>"
    fields = list(field_rows(operation))
    if fields:
        yield render_table(("Field", "Type", "Meaning"), fields)
    yield render_table(
        ("Status", "Meaning"),
        ((status, answer.get("description", "")) for status, answer in sorted(operation["responses"].items())),
    )


def field_rows(operation: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return name, type and meaning of each field of a request."""
    for parameter in operation.get("parameters", ()):
        yield render_field(
            parameter["name"], parameter["schema"], parameter.get("description", ""), required=parameter["required"]
        )
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    for name, field in schema.get("properties", {}).items():
        yield render_field(name, field, field.get("description", ""), required=name in schema.get("required", ()))


def render_field(name: str, schema: dict[str, Any], meaning: str, *, required: bool) -> tuple[str, ...]:
    """Describe one field."""
    kind = schema.get("type") or " or ".join(option.get("type", "object") for option in schema.get("anyOf", ({},)))
    return (name, kind if required else f"{kind}, optional", meaning)


def render_table(head: tuple[str, ...], rows: Any) -> str:
    """Write a table."""
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>" for cells in rows]
    return f"<table>{''.join(lines)}</table>"
