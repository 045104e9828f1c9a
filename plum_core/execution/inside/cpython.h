/* What is used of CPython, declared by hand, so that one library serves every version without its headers. All of it
 * is of the stable ABI but marshal and the arenas. Weak: preloaded, the library must not keep another program from
 * starting. */
#ifndef PLUM_CPYTHON_H
#define PLUM_CPYTHON_H
#include <sys/types.h>

#define PYTHON extern __attribute__((weak))
typedef void Object;

typedef struct {
    void *context;
    void *(*alloc)(void *context, size_t size);
    void (*free)(void *context, void *arena, size_t size);
} ArenaAllocator;
PYTHON void PyObject_SetArenaAllocator(ArenaAllocator *allocator);
PYTHON void *PyObject_Malloc(size_t size);
PYTHON void PyMem_Free(void *memory);

PYTHON char _Py_NoneStruct, _Py_TrueStruct;
PYTHON char PyBool_Type, PyLong_Type, PyFloat_Type, PyUnicode_Type, PyList_Type, PyTuple_Type, PyDict_Type;
PYTHON Object *PyObject_Type(Object *value);
PYTHON void Py_DecRef(Object *value);

PYTHON Object *PyMarshal_ReadObjectFromString(const char *bytes, ssize_t size);
PYTHON Object *Py_BuildValue(const char *format, ...);
PYTHON Object *PyObject_Call(Object *function, Object *args, Object *kwargs);
PYTHON Object *PyObject_CallFunction(Object *function, const char *format, ...);
PYTHON int PyObject_IsTrue(Object *value);
PYTHON Object *PyEval_EvalCode(Object *code, Object *globals, Object *locals);
PYTHON Object *PyImport_AddModule(const char *name); /* borrowed, as all that follows from here on */
PYTHON Object *PyModule_GetDict(Object *module);
PYTHON Object *PyDict_GetItemString(Object *dict, const char *key);
PYTHON Object *PyDict_GetItem(Object *dict, Object *key);
PYTHON Object *PyDict_New(void); /* new */
PYTHON int PyDict_SetItem(Object *dict, Object *key, Object *value);
PYTHON int PyDict_SetItemString(Object *dict, const char *key, Object *value);
PYTHON int PyDict_Next(Object *dict, ssize_t *position, Object **key, Object **value);
PYTHON ssize_t PyDict_Size(Object *dict);
PYTHON ssize_t PyList_Size(Object *list);
PYTHON Object *PyList_GetItem(Object *list, ssize_t index);
PYTHON Object *PyList_AsTuple(Object *list); /* new */
PYTHON ssize_t PyTuple_Size(Object *tuple);
PYTHON Object *PyTuple_GetItem(Object *tuple, ssize_t index);
PYTHON long long PyLong_AsLongLongAndOverflow(Object *value, int *overflow);
PYTHON double PyFloat_AsDouble(Object *value);
PYTHON char *PyOS_double_to_string(double value, char format, int precision, int flags, int *type);
PYTHON const char *PyUnicode_AsUTF8AndSize(Object *text, ssize_t *size);
PYTHON int PyUnicode_CompareWithASCIIString(Object *text, const char *ascii);
PYTHON void PyErr_Fetch(Object **type, Object **value, Object **trace);
PYTHON void PyErr_NormalizeException(Object **type, Object **value, Object **trace);
PYTHON int PyException_SetTraceback(Object *problem, Object *trace);
PYTHON void PyErr_Clear(void);
PYTHON int PyGC_Enable(void);
PYTHON ssize_t PyGC_Collect(void);

#endif
