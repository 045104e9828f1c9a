"""Answers of a checkpoint of ours, through the sampler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from plum_core.prompts import encode_prompt
from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.testing.generators.interface import Answer, AnswerRequest


class LocalGenerator:
    """A ``Generator``. A checkpoint with a chat template gets it, a base model the messages as plain text.

    chunk: requests that are read ahead; those of one temperature and length decode together. An answer depends on its
    request alone, whichever others it was drawn with.
    """

    def __init__(self, sampler: Sampler, *, chunk: int = 256) -> None:
        if chunk < 1:
            raise ValueError(f"chunk must be 1 or more, got {chunk}")
        self.sampler, self.chunk = sampler, chunk

    def answers(self, requests: Iterable[AnswerRequest]) -> Iterator[Answer]:
        """Answers as they finish; a prompt that leaves no room for the answer has ``error`` set.

        Raises ValueError where the chat template refuses a conversation.
        """
        waiting = iter(requests)
        while part := list(islice(waiting, self.chunk)):
            groups: dict[tuple[float, int], list[AnswerRequest]] = {}
            for request in part:
                groups.setdefault((request.temperature, request.max_tokens), []).append(request)
            for (temperature, max_tokens), members in groups.items():
                params = SamplingParams(temperature=temperature, max_new_tokens=max_tokens)
                yield from self._drawn(members, params)

    def _drawn(self, members: Sequence[AnswerRequest], params: SamplingParams) -> Iterator[Answer]:
        limit = self.sampler.decoder.config.max_position_embeddings
        asked: list[Request] = []
        for number, request in enumerate(members):
            ids = self.prompt_ids(request)
            if len(ids) + params.max_new_tokens > limit:
                yield Answer(
                    id=request.id,
                    text="",
                    prompt_tokens=len(ids),
                    error=f"{len(ids)} prompt tokens and max_tokens={params.max_new_tokens} pass the {limit} positions",
                )
            else:  # ids may repeat, so the sampler gets numbers
                asked.append(Request(id=str(number), token_ids=ids, seeds=(request.seed,)))
        lengths = {request.id: len(request.token_ids) for request in asked}
        for completion in self.sampler.sample(asked, params) if asked else ():
            yield Answer(
                id=members[int(completion.request_id)].id,
                text=completion.text,
                finish_reason=completion.finish_reason,
                prompt_tokens=lengths[completion.request_id],
                completion_tokens=len(completion.token_ids),
            )

    def prompt_ids(self, request: AnswerRequest) -> tuple[int, ...]:
        """The conversation as token ids: the template's text as it stands, else the contents one after another."""
        tokenizer = self.sampler.tokenizer
        if tokenizer.chat_templates:
            return tuple(tokenizer.encode(tokenizer.render_chat(request.messages)))
        return encode_prompt(tokenizer, "\n\n".join(m["content"] for m in request.messages) + "\n")
