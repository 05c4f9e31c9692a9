"""pydantic's errors in the user's words: the setting, what was got and from where, what was expected."""

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

EXPECTED: dict[str, str] = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
}


def explain(error: ValidationError, sources: Mapping[str, str], known: Mapping[str, FieldInfo]) -> str:
    """One line an error. sources: dotted key -> where its value came from. known: dotted key -> its field."""
    return "\n".join(_line(dict(item), sources, known) for item in error.errors(include_url=False))


def _line(item: dict[str, Any], sources: Mapping[str, str], known: Mapping[str, FieldInfo]) -> str:
    key = ".".join(str(part) for part in item["loc"][:2])
    message = item["msg"].removeprefix("Value error, ")
    if key not in sources:
        return message + _origins(message, sources)
    return f"{key}: got {_show(item['input'])} ({sources[key]}), {_expectation(item, message, known[key])}"


def _expectation(item: Mapping[str, Any], message: str, field: FieldInfo) -> str:
    if item["type"] == "value_error":  # one of our validators, whose message is complete
        return message
    if item["type"] == "string_pattern_mismatch":
        return f"expected {field.description}"
    expected = EXPECTED.get(item["type"], message).format(**item.get("ctx", {}))
    return f"expected {expected}" + (_nearest(item) if item["type"] == "literal_error" else "")


def _origins(message: str, sources: Mapping[str, str]) -> str:
    """Where the settings named in a rule's message came from."""
    named = [key for key in re.findall(r"\b[a-z]+\.\w+", message) if key in sources]
    return f" ({', '.join(f'{key}: {sources[key]}' for key in dict.fromkeys(named))})"


def _nearest(item: Mapping[str, Any]) -> str:
    choices = re.findall(r"'([^']*)'", item["ctx"]["expected"])
    close = difflib.get_close_matches(str(item["input"]), choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()  # arguments that are not UTF-8 must still print
