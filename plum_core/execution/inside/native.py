"""forkserver.c from Python: what the zygote prepares for it, and its steps by name."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from plum_core.execution.inside import child, confine, kernel, words

# All that cpython.h declares, there as weak symbols: one that this interpreter lacks would be called at address 0.
USED = words(
    """
    PyObject_SetArenaAllocator PyObject_Malloc PyMem_Free _Py_NoneStruct _Py_TrueStruct PyBool_Type PyLong_Type
    PyFloat_Type PyUnicode_Type PyList_Type PyTuple_Type PyDict_Type PyObject_Type Py_DecRef
    PyMarshal_ReadObjectFromString Py_BuildValue PyObject_Call PyObject_CallFunction PyObject_IsTrue
    PyEval_EvalCode PyImport_AddModule PyModule_GetDict PyDict_GetItemString PyDict_GetItem PyDict_New
    PyDict_SetItem PyDict_SetItemString PyDict_Next PyDict_Size PyList_Size PyList_GetItem PyList_AsTuple
    PyTuple_Size PyTuple_GetItem PyLong_AsLongLongAndOverflow PyFloat_AsDouble PyOS_double_to_string
    PyUnicode_AsUTF8AndSize PyUnicode_CompareWithASCIIString PyErr_Fetch PyErr_NormalizeException
    PyException_SetTraceback PyErr_Clear PyGC_Enable PyGC_Collect
    """
)


class _Child(ctypes.Structure):
    """``struct child``."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("job", "answers")),
        *((name, ctypes.py_object) for name in ("bound", "answer", "returned", "raised")),
    )


class _Zygote(ctypes.Structure):
    """``struct zygote``."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("pid", "control", "open_files", "pid_words")),
        ("child", _Child),
        *((name, ctypes.c_void_p) for name in ("filter", "pids", "program")),
    )


def load(path: str) -> ctypes.PyDLL:
    """The library, with the GIL held through its calls. Raises OSError where this interpreter cannot load it."""
    missing = [name for name in sorted(USED) if not hasattr(ctypes.pythonapi, name)]
    if missing:
        raise OSError(f"this interpreter has no {', '.join(missing)}")
    library = ctypes.PyDLL(path)
    library.plum_serve.restype = ctypes.py_object
    library.plum_enter.restype = ctypes.c_int
    library.plum_open.restype = library.plum_join.restype = library.plum_close.restype = None
    return library


class NativeConfinement:
    """``confine.Confinement`` in C, and the loop around it. ``control``: the descriptor of the judge's requests."""

    def __init__(self, library: ctypes.PyDLL, threads: bool, control: int = -1) -> None:
        short = kernel.ChildFilter(threads)
        pids = (ctypes.c_uint32 * len(short.pids))(*short.pids)
        words = ctypes.addressof(ctypes.c_uint32.from_buffer(short.words))
        helpers = child.bound, child.answer, child.returned, child.raised
        served = _Child(confine.JOB_FD, confine.ANSWERS_FD, *helpers)
        own = os.getpid(), control, confine.OPEN_FILES, len(pids), served
        self._zygote = _Zygote(*own, words, ctypes.addressof(pids), short.address)
        self._keep = short, pids
        self._enter = library.plum_enter
        self._serve = library.plum_serve
        self._pointer = ctypes.byref(self._zygote)

    def enter(self) -> None:
        """Confine this process, a fresh fork. Raises OSError under the name of the step that failed."""
        failed = self._enter(self._pointer)
        if failed:
            raise OSError(0, confine.STEPS[failed - 1])

    def serve(self) -> dict[str, Any] | None:
        """Serve the judge. Returns in each child with its job, and in the zygote for the request ``LIBRARY``: None."""
        job: dict[str, Any] | None = self._serve(self._pointer)
        return job
