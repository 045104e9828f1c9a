"""The embedded policy's world: English instructions for one Python function, from a typed grammar.

A task is a source (what the function takes), a few typed operations and a reduction; some tasks combine two or
three such pipelines. The grammar writes the instruction, four styles of solution and typed inputs. Splits are by
composition (``Task.skeleton``, the operations without their constants), so no stage sees another's compositions.
"""

from plum_core.grammar.tasks import Problem, problems, split_of

__all__ = ["Problem", "problems", "split_of"]
