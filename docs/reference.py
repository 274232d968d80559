"""Writes reference.md beside this file: the command line, autoresearch.toml and the tools, as the code itself says they are.

    python docs/reference.py

Commands come from typer, keys from the task's models and the docstrings under their fields, tools from a real server on a new
workspace of the default task. tests/test_docs.py asserts that the committed page is what comes out; nothing in it is by hand.
"""

import ast
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import anyio
import typer
from pydantic import BaseModel

from autoresearch_mcp import cli, sections
from autoresearch_mcp import task as tasks
from autoresearch_mcp.app import build_server
from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.views import answers

PAGE = Path(__file__).with_suffix(".md")
COMMON = ("next", "allowed")  # in every answer
ANSWER = "Answer"

HEAD = """\
# Reference

For whoever looks something up: every command, every key of `autoresearch.toml`, every tool. Written by `make docs` from the code.

- [Command line](#command-line)
- [autoresearch.toml](#autoresearchtoml)
- [Tools](#tools)
- [Answers](#answers)
- [Resources and prompt](#resources-and-prompt)
"""

TOML = """\
## autoresearch.toml

Paths are relative to the task's folder and stay inside it. A key that is not listed is refused, with its line.
"""

TOOLS = """\
## Tools

As the default task has them: `read_train` is `read_<stem of files.editable>` and `get_val_bpb` is `get_<metric.name>`; the rest is
the same for every task. A parameter in brackets may be left out.
"""

ANSWERS = """\
## Answers

Structured content and a text that stands alone. Fields that are empty are left out; those marked *text* are in the text only.
Every answer carries:
"""


def page() -> str:
    return "\n".join([HEAD, *command_line(), TOML, *toml_keys(), *served()])


# --- command line -----------------------------------------------------------------------------------------------------


def command_line() -> Iterator[str]:
    yield "## Command line\n"
    group: Any = typer.main.get_command(cli.app)
    yield from table(("", "default", ""), (_parameter(parameter) for parameter in group.params))
    for name, command in group.commands.items():
        arguments = [parameter for parameter in command.params if not _is_option(parameter)]
        usage = "".join(f" {p.name.upper()}" if p.required else f" [{p.name.upper()}]" for p in arguments)
        yield f"### autoresearch-mcp {name}{usage}\n\n{command.help}\n"
        if command.params:
            yield from table(("", "default", ""), (_parameter(parameter) for parameter in command.params))


def _is_option(parameter: Any) -> bool:
    return parameter.opts[0].startswith("-")


def _parameter(parameter: Any) -> tuple[str, str, str]:
    if not _is_option(parameter):
        return f"`{parameter.name.upper()}`", "", parameter.help
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    default = "" if parameter.default in (None, False) else f"`{parameter.default}`"
    return names, default, parameter.help + (" May be given again." if parameter.multiple else "")


# --- autoresearch.toml ------------------------------------------------------------------------------------------------


def toml_keys() -> Iterator[str]:
    meanings = docstrings(Path(tasks.__file__)) | docstrings(Path(sections.__file__))
    top = {name: field for name, field in tasks.Task.model_fields.items() if _section(field.annotation) is None}
    yield "### The task\n"
    yield from _keys(tasks.Task, list(top), meanings)
    for name, field in tasks.Task.model_fields.items():
        if section := _section(field.annotation):
            heading = f"[{name}]" if section is field.annotation else f"[[{name}]]"
            yield f"### {heading}\n\n{meanings['Task', name]}\n"
            yield from _keys(section, list(section.model_fields), meanings)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The table, or the list's, that a key of the task holds."""
    for kind_of in (annotation, *get_args(annotation)):
        if isinstance(kind_of, type) and issubclass(kind_of, sections.Section):
            return kind_of
    return None


def _keys(model: type[BaseModel], names: list[str], meanings: dict[tuple[str, str], str]) -> Iterator[str]:
    schema = model.model_json_schema()
    rows: list[tuple[str, ...]] = []
    for name in names:
        key, required = schema["properties"][name], name in schema.get("required", [])
        rows.append((f"`{name}`", kind(key), "required" if required else _toml(key.get("default")), meanings[model.__name__, name]))
    yield from table(("key", "type", "default", "meaning"), rows)


def _toml(value: object) -> str:
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def docstrings(source: Path) -> dict[tuple[str, str], str]:
    """By class and field: the string that stands under the field."""
    found: dict[tuple[str, str], str] = {}
    for part in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(part, ast.ClassDef):
            for line, below in zip(part.body, part.body[1:], strict=False):
                match line, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[part.name, name] = " ".join(text.split())
                    case _:
                        pass
    return found


# --- what a server offers ---------------------------------------------------------------------------------------------


def served() -> list[str]:
    """Tools, answers, resources and the prompt of a server of the default task, at a preset that every machine has."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = create(Path(folder) / "workspace", "default", "cpu")
        ledger = open_ledger(workspace)
        try:
            return anyio.run(_served, Session.start(workspace, ledger, "reference"))
        finally:
            ledger.close()


async def _served(session: Session) -> list[str]:
    server = build_server(session)
    lines, schemas = [TOOLS], {}
    for tool in await server.list_tools():
        schema, answer = tool.input_schema, tool.output_schema or {}
        schemas[answer["title"]] = answer
        required = schema.get("required", [])
        parameters = ", ".join(name if name in required else f"[{name}]" for name in schema["properties"])
        reads = " It changes nothing." if tool.annotations and tool.annotations.read_only_hint else ""
        lines.append(f"### {tool.name}({parameters})\n\n{_shown(tool.description or '')}{reads}\n")
        lines += [_field(name, field) for name, field in schema["properties"].items()]
        lines.append(f"- answers {_link(answer['title'])}\n")
    lines.append(ANSWERS)
    first = next(iter(schemas.values()))
    lines += [_field(name, first["properties"][name]) for name in COMMON] + [""]
    parts = {name: part for schema in schemas.values() for name, part in schema.get("$defs", {}).items()}
    for title, schema in [*schemas.items(), *parts.items()]:
        lines += [f"### {ANSWER} {title}\n", *_fields(title, schema), ""]
    lines.append("## Resources and prompt\n")
    resources = [(str(resource.uri), resource.description) for resource in await server.list_resources()]
    resources += [(template.uri_template, template.description) for template in await server.list_resource_templates()]
    lines += [f"- `{uri}`: {description}" for uri, description in resources]
    lines += [f"- the prompt `{prompt.name}`: {prompt.description}" for prompt in await server.list_prompts()]
    return [*lines, ""]


def _fields(title: str, schema: dict[str, Any]) -> Iterator[str]:
    model: type[BaseModel] = getattr(answers, title)
    text_alone = getattr(model, "TEXT_ALONE", ())
    for name, field in schema["properties"].items():
        if name not in COMMON and not model.model_fields[name].exclude:
            yield _field(name, field, ", *text*" if name in text_alone else "")


def _field(name: str, schema: dict[str, Any], mark: str = "") -> str:
    meaning = f": {_shown(schema['description'])}" if "description" in schema else ""
    return f"- `{name}`, {kind(schema)}{mark}{meaning}"


# --- what they share --------------------------------------------------------------------------------------------------


def kind(schema: dict[str, Any]) -> str:
    """The type of a value in words, its bounds included."""
    if "$ref" in schema:
        return _link(schema["$ref"].rsplit("/", 1)[-1])
    if "anyOf" in schema:
        return " or ".join(kind(choice) for choice in schema["anyOf"] if choice != {"type": "null"})
    if "enum" in schema:
        return " or ".join(f'`"{choice}"`' for choice in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {_plural(kind(schema['items']))}"
        case "object":
            values = schema.get("additionalProperties")
            return f"table of {_plural(kind(values))} by name" if isinstance(values, dict) else "table"
        case other:
            bounds = [
                words.format(schema[key])
                for key, words in (
                    ("exclusiveMinimum", "above {}"),
                    ("minimum", "{} or more"),
                    ("maximum", "{} at most"),
                    ("maxLength", "{} characters at most"),
                    ("pattern", "matches `{}`"),
                )
                if key in schema
            ]
            return f"{other} ({', '.join(bounds)})" if bounds else str(other)


def _plural(words: str) -> str:
    first, _, rest = words.partition(" ")
    return words if first.startswith("[") else f"{first}s {rest}".strip()


def _link(answer: str) -> str:
    """To an answer's heading; a tool of the same name would otherwise be in the way."""
    return f"[{answer}](#{ANSWER.lower()}-{answer.lower()})"


def _shown(text: str) -> str:
    """Text that Markdown shows as it is: angle brackets outside of code are no tags."""
    parts = text.split("`")
    return "`".join(part if odd % 2 else part.replace("<", "\\<") for odd, part in enumerate(parts))


def table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


if __name__ == "__main__":
    os.environ.setdefault("GIT_CONFIG_GLOBAL", os.devnull)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written:    {PAGE}")
