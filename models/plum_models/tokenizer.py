"""Text to ids and back, by the `tokenizers` library and a checkpoint's own files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as RustTokenizer

from plum_models.chat import render

EOS, PAD = "<|endoftext|>", "<|pad|>"
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
TRAVELLING = ("generation_config.json", "chat_template.jinja", "special_tokens_map.json")


class Tokenizer:
    """A checkpoint's tokenizer with the special ids that training and sampling need.

    ``encode`` adds no special token: where a sequence begins and ends is the caller's decision, made once.
    """

    def __init__(
        self,
        inner: RustTokenizer,
        *,
        eos_token_ids: Iterable[int],
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        settings: Mapping[str, Any] | None = None,
        other_files: Mapping[str, bytes] | None = None,
    ) -> None:
        """settings: of tokenizer_config.json. other_files: what else travels with a checkpoint, by name."""
        self.inner = inner
        self.settings = dict(settings or {"tokenizer_class": "PreTrainedTokenizerFast"})
        self.other_files = dict(other_files or {})
        eos = list(eos_token_ids)
        if not eos:
            raise ValueError("a tokenizer needs at least one end-of-sequence id: without one, no sample ever stops")
        self.eos_token_id = eos[0]
        self.eos_token_ids = frozenset(eos)
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id

    @property
    def vocab_size(self) -> int:
        return self.inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens are left out."""
        return self.inner.decode(list(ids), skip_special_tokens=True)

    @property
    def chat_templates(self) -> dict[str, str]:
        """By name; a checkpoint's own is ``default``. Empty for a base model."""
        file = self.other_files.get("chat_template.jinja")
        if file is not None:
            return {"default": file.decode("utf-8")}
        told = self.settings.get("chat_template")
        if isinstance(told, str):
            return {"default": told}
        return {entry["name"]: entry["template"] for entry in told or ()}

    def render_chat(self, messages: Sequence[Mapping[str, Any]], *, name: str = "default", **variables: Any) -> str:
        """The text that the checkpoint's template makes of ``messages``; see ``chat.render`` for what it takes.

        Special tokens stand in it as text, the beginning of the sequence included, and ``encode`` makes ids of them:
        nothing must be put in front. Raises ValueError where there is no such template.
        """
        templates = self.chat_templates
        if name not in templates:
            known = f"it has {', '.join(templates)}" if templates else "it has none: is it a base model?"
            raise ValueError(f"this tokenizer has no chat template {name!r}; {known}")
        special = {f"{kind}_token": self._text_of(kind) for kind in ("bos", "eos", "pad", "unk")}
        return render(templates[name], messages, **{k: v for k, v in special.items() if v is not None} | variables)

    def _text_of(self, kind: str) -> str | None:
        told = self.settings.get(f"{kind}_token")
        return told.get("content") if isinstance(told, dict) else told

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Byte-level BPE. Digits stand alone and a merge never crosses a line, but it may cross words."""
        inner = RustTokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.Split(Regex(r"\n *"), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[EOS, PAD],  # ids 0 and 1: the trainer numbers them first
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner, eos_token_ids=[0], pad_token_id=1)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read tokenizer.json, and the special ids that config, generation config and tokenizer config name."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: a checkpoint folder needs its tokenizer.json")
        try:
            inner = RustTokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{path} is not a tokenizer file ({error}): copy it again from the checkpoint") from error
        settings = _json(folder / "tokenizer_config.json")
        for kind, token in _json(folder / "special_tokens_map.json").items():  # where older exports alone name them
            if kind in SPECIAL and settings.get(kind) is None:
                settings[kind] = token
        eos: list[int] = []
        for name in ("generation_config.json", "config.json"):
            found = _json(folder / name).get("eos_token_id")
            eos += found if isinstance(found, list) else [found] if found is not None else []
        eos += _ids(inner, settings, "eos_token")
        if not eos:
            raise ValueError(
                f"{folder}: config.json, generation_config.json and tokenizer_config.json name no end-of-sequence id: "
                "without one no sample ever stops; add eos_token_id to config.json"
            )
        return cls(
            inner,
            eos_token_ids=list(dict.fromkeys(eos)),
            pad_token_id=next(iter(_ids(inner, settings, "pad_token")), None),
            bos_token_id=next(iter(_ids(inner, settings, "bos_token")), None),
            settings=settings,
            other_files={name: (folder / name).read_bytes() for name in TRAVELLING if (folder / name).is_file()},
        )

    def files(self) -> dict[str, bytes]:
        """The tokenizer's files in Hugging Face's layout, by name."""
        settings = dict(self.settings)
        for key, token in (("eos", self.eos_token_id), ("pad", self.pad_token_id), ("bos", self.bos_token_id)):
            if token is not None:
                settings.setdefault(f"{key}_token", self.inner.id_to_token(token))
        return self.other_files | {
            "tokenizer.json": self.inner.to_str(pretty=False).encode(),
            "tokenizer_config.json": (json.dumps(settings, indent=2) + "\n").encode(),
        }


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}): copy the file again") from error


def _ids(inner: RustTokenizer, settings: dict[str, Any], key: str) -> list[int]:
    token = settings.get(key)
    token = token.get("content") if isinstance(token, dict) else token
    found = inner.token_to_id(token) if token else None
    return [] if found is None else [found]
