"""Who answers stage 1's questions: a checkpoint of ours, a file of answers, or an endpoint.

``endpoint`` needs httpx, so it is imported by its own name: ``from plum_core.testing.generators.endpoint import
Endpoint, EndpointConfig``.
"""

from plum_core.testing.generators.answer_file import AnswerFile
from plum_core.testing.generators.interface import Answer, AnswerRequest, Generator
from plum_core.testing.generators.local import LocalGenerator

__all__ = ["Answer", "AnswerFile", "AnswerRequest", "Generator", "LocalGenerator"]
