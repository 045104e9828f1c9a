"""What a generator is asked, as text files that anybody may edit.

A template has sections, ``[system]``, ``[user]`` or ``[assistant]`` alone on a line, the last one the user's.
``{problem}`` stands for the instruction, ``{starter}`` for the code that an answer must continue, with a word about it,
or for nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from plum_core.records import Instruction

FOLDER = Path(__file__).parent
SECTION = re.compile(r"^\[(system|user|assistant)\][ \t]*$", re.M)
PLACEHOLDER = re.compile(r"\{(\w+)\}")
KNOWN = ("problem", "starter")
STARTER = "The solution continues this code, names and signature as they are:\n```python\n{code}\n```\n\n"


class Template:
    """A prompt. Raises ValueError, with the file, for text that is none: no section, an unknown placeholder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            text = self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{self.path}: a template is UTF-8 text") from None
        before, *parts = SECTION.split(text)
        if before.strip() or not parts:
            raise ValueError(f"{self.path}: a template begins with [system] or [user] alone on a line")
        self.sections = [(role, body.strip("\n")) for role, body in zip(parts[::2], parts[1::2], strict=True)]
        if self.sections[-1][0] != "user":
            raise ValueError(f"{self.path}: the last section of a template is [user], got [{self.sections[-1][0]}]")
        named = {name for _, body in self.sections for name in PLACEHOLDER.findall(body)}
        if strange := sorted(named - set(KNOWN)):
            raise ValueError(
                f"{self.path}: unknown placeholder {{{strange[0]}}}; there are {{problem}} and {{starter}}"
            )
        if "problem" not in named:
            raise ValueError(f"{self.path}: a template needs {{problem}}, where the instruction goes")

    def messages(self, instruction: Instruction) -> tuple[dict[str, str], ...]:
        """The conversation for one instruction. Braces in the instruction are text."""
        starter = STARTER.replace("{code}", instruction.starter.rstrip()) if instruction.starter else ""
        values = {"problem": instruction.prompt.strip(), "starter": starter}
        return tuple(
            {"role": role, "content": PLACEHOLDER.sub(lambda found: values[found.group(1)], body)}
            for role, body in self.sections
        )


def template(name_or_path: str) -> Template:
    """One that ships, by name, or a file of yours. Raises ValueError naming those that ship where there is none."""
    shipped = {path.stem: path for path in FOLDER.glob("*.txt")}
    path = shipped.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise ValueError(f"no template {name_or_path!r}: give a file, or one of {', '.join(sorted(shipped))}")
    return Template(path)
