"""The only place that says what all declarations have in common, and how their fields are described."""

import ast
import inspect
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Declaration(BaseModel):
    """Frozen, unknown keys are errors, and a docstring under each field describes it.

    What a declaration is made of is looked at when the first one is read, and its docstrings when somebody
    asks for them: of all that is installed a file names little, and a server asks for no descriptions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for field, text in descriptions(cls).items():
            name = cls.model_fields[field].alias or field
            if name in properties:
                properties[name].setdefault("description", text)
        return made


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What is said about the fields of a model, by its docstrings and those of its bases."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel):
            found |= docstrings(kind)
    found |= {name: info.description for name, info in model.model_fields.items() if info.description}
    return {name: found[name] for name in model.model_fields if found.get(name)}


def docstrings(kind: type) -> dict[str, str]:
    """The names that a class annotates, each with the string under it; empty where there is none."""
    try:
        lines = inspect.getsource(kind)
    except (OSError, TypeError):  # made by a program
        return {}
    # A class within something else is indented, and its strings need not be.
    tree = ast.parse(f"if True:\n{lines}" if lines[0].isspace() else lines)
    body = next(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return {
        field.target.id: under(after)
        for field, after in pairwise([*body, ast.Pass()])
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def under(statement: ast.stmt) -> str:
    """The text of a statement that is nothing but a string."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    text = value.value if isinstance(value, ast.Constant) else None
    return inspect.cleandoc(text) if isinstance(text, str) else ""
