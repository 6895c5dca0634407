"""Annotations as JSON Schema, by pydantic, which the `mcp` package brings along.

The stored form of every type is what these schemas describe (`everstep.plain` lists the forms), so that a call that
fits its schema fits the workflow. A parameter whose annotation has no schema takes anything here; what does not fit is
refused by the start, by name. (Before Python 3.12 that is so for `typing.TypedDict`; that of `typing_extensions` has
one.)
"""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticOmit, core_schema

from everstep.errors import NotSerializable
from everstep.plain import plain
from everstep.signature import Signature


class _Stored(GenerateJsonSchema):
    """Where the stored form is another than pydantic's."""

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        return {"type": "string", "contentEncoding": "base64"}

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        return {"type": ["string", "number"]} if self.mode == "validation" else {"type": "string"}

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        described = {"type": "string", "format": "duration"}
        if self.mode == "serialization":
            return described
        return {"anyOf": [{"type": "number", "description": "seconds"}, described]}

    def encode_default(self, dft: Any) -> Any:
        try:
            return plain(dft)
        except NotSerializable:
            raise PydanticOmit from None

    def emit_warning(self, kind: Any, detail: str) -> None:
        """A default that cannot be shown is left out; nobody needs to be told."""


def parameters(signature: Signature) -> dict[str, Any]:
    """The object schema of a call by keyword, the Context left out."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    more: Any = False
    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = []
    for parameter in signature.parameters:
        hint = signature.hints.get(parameter.name, Any)
        match parameter.kind:
            case inspect.Parameter.VAR_KEYWORD:
                more = True
                continue
            case inspect.Parameter.VAR_POSITIONAL:
                hint = list[hint]  # type: ignore[valid-type]
            case _ if parameter.default is parameter.empty:
                required.append(parameter.name)
        properties[parameter.name] = {}
        found = _adapter(hint, "validation")
        if found is not None:
            adapters.append((parameter.name, "validation", found))
    schemas, shared = TypeAdapter.json_schemas(adapters, schema_generator=_Stored)
    for parameter in signature.parameters:
        name = parameter.name
        if (name, "validation") in schemas:
            properties[name] = dict(schemas[name, "validation"])
        if name in properties and parameter.default is not parameter.empty:
            try:
                properties[name]["default"] = plain(parameter.default)
            except NotSerializable:
                pass
    result: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": more}
    if required:
        result["required"] = required
    if shared.get("$defs"):
        result["$defs"] = shared["$defs"]
    return result


def returned(signature: Signature) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a result in its stored form, and the definitions it refers to; {} where every value may come."""
    adapter = _adapter(signature.returns, "serialization")
    if adapter is None:
        return {}, {}
    schema = adapter.json_schema(mode="serialization", schema_generator=_Stored)
    return schema, schema.pop("$defs", {})


def _adapter(hint: Any, mode: Any) -> TypeAdapter[Any] | None:
    """None for an annotation that pydantic has no schema for; whatever goes wrong in building one says just that."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
        adapter.json_schema(mode=mode, schema_generator=_Stored)
    except Exception:
        return None
    return adapter
