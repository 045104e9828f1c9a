/* A job of calls, from its program's load to its last answer: run_calls of child.py, which is the reference.
 *
 * What is common stands here: a call by name, an answer of plain data. All else, exceptions too, is handed to the
 * functions of child.py. Like them this runs beside the program and decides nothing.
 */
#include "calls.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEEPEST = 50, ADD_DOT_0 = 2 };

static struct {
    char *bytes;
    size_t size, space;
} line;

static int put(const char *bytes, size_t size) {
    if (line.size + size > line.space) {
        size_t space = 2 * (line.size + size) + 4096;
        char *more = realloc(line.bytes, space);
        if (more == NULL) return 0;
        line.bytes = more, line.space = space;
    }
    memcpy(line.bytes + line.size, bytes, size);
    line.size += size;
    return 1;
}

static int put_text(const char *text) { return put(text, strlen(text)); }

/* By hand, as the rest of this file: printf alone maps six pages of text anew in each child. */
static int put_number(long long number) {
    char digits[20], *at = digits + sizeof digits;
    unsigned long long left = number < 0 ? 0ULL - (unsigned long long)number : (unsigned long long)number;
    do *--at = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    if (number < 0) *--at = '-';
    return put(at, (size_t)(digits + sizeof digits - at));
}

static int put_integer(Object *value) {
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    return !overflow && put_number(number);
}

static int put_float(Object *value) {
    double number = PyFloat_AsDouble(value);
    char *digits = isfinite(number) ? PyOS_double_to_string(number, 'r', 0, ADD_DOT_0, NULL) : NULL;
    int done = digits != NULL && put_text(digits);
    if (digits != NULL) PyMem_Free(digits);
    return done;
}

/* ASCII alone: the rest has escapes that child.py knows. */
static int put_string(Object *value) {
    ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (!put("\"", 1)) return 0;
    for (ssize_t i = 0; i < size; i++) {
        const char *hex = "0123456789abcdef";
        char escaped[] = {'\\', 'u', '0', '0', hex[(text[i] >> 4) & 15], hex[text[i] & 15]};
        int plain = text[i] >= ' ' && text[i] != '"' && text[i] != '\\';
        if ((unsigned char)text[i] > 0x7e || !(plain ? put(&text[i], 1) : put(escaped, sizeof escaped))) return 0;
    }
    return put("\"", 1);
}

static int put_value(Object *value, int depth);

static int put_items(Object *value, ssize_t size, Object *(*item)(Object *, ssize_t), int depth) {
    if (!put("[", 1)) return 0;
    for (ssize_t i = 0; i < size; i++)
        if ((i > 0 && !put(",", 1)) || !put_value(item(value, i), depth + 1)) return 0;
    return put("]", 1);
}

static int put_dict(Object *value, int depth) {
    ssize_t position = 0;
    Object *key, *entry;
    const char *before = "{\"d\":[[";
    while (PyDict_Next(value, &position, &key, &entry)) {
        if (!put_text(before) || !put_value(key, depth + 1)) return 0;
        if (!put(",", 1) || !put_value(entry, depth + 1)) return 0;
        before = "],[";
    }
    return put_text(position == 0 || *before == '{' ? "{\"d\":[]}" : "]]}");
}

/* `value` as codec.py encodes it; 0 where that is left to codec.py. */
static int put_value(Object *value, int depth) {
    if (value == &_Py_NoneStruct) return put_text("null");
    Object *type = PyObject_Type(value);
    Py_DecRef(type);
    if (type == &PyBool_Type) return put_text(value == &_Py_TrueStruct ? "true" : "false");
    if (type == &PyLong_Type) return put_integer(value);
    if (type == &PyFloat_Type) return put_float(value);
    if (type == &PyUnicode_Type) return put_string(value);
    if (depth > DEEPEST) return 0;
    if (type == &PyList_Type) return put_items(value, PyList_Size(value), PyList_GetItem, depth);
    if (type == &PyTuple_Type)
        return put_text("{\"t\":") && put_items(value, PyTuple_Size(value), PyTuple_GetItem, depth) && put("}", 1);
    return type == &PyDict_Type && put_dict(value, depth);
}

/* The answer of call `index`, as a line of the answer file; 0 where its value is left to child.py. */
static int answered(const struct child *child, Object *nonce, int index, Object *value) {
    line.size = 0;
    if (!put("[", 1) || !put_string(nonce) || !put(",", 1) || !put_number(index)) return 0;
    if (!put_text(",\"v\",") || !put_value(value, 0) || !put("]\n", 2)) return 0;
    if (write(child->answers, line.bytes, line.size) < 0) _exit(BROKEN);
    return 1;
}

/* The exception at hand. */
static Object *problem(void) {
    Object *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace != NULL) PyException_SetTraceback(value, trace);
    return value;
}

/* child.py wrote the answer itself; where it could not, the process ends. */
static void handed_over(Object *done) {
    if (done == NULL) _exit(BROKEN);
    Py_DecRef(done);
}

static void raised(const struct child *child, Object *nonce, int index) {
    handed_over(PyObject_CallFunction(child->raised, "iOiO", child->answers, nonce, index, problem()));
}

static int executed(Object *compile, Object *source, const char *name, Object *space) {
    Object *code = PyObject_CallFunction(compile, "OssiO", source, name, "exec", 0, &_Py_TrueStruct);
    return code != NULL && PyEval_EvalCode(code, space, space) != NULL;
}

/* The program's globals; NULL, and the exception, when its code raised. */
static Object *loaded(Object *job) {
    Object *builtins = PyImport_AddModule("builtins"), *setup = PyDict_GetItemString(job, "setup");
    Object *compile = PyDict_GetItemString(PyModule_GetDict(builtins), "compile");
    Object *space = PyModule_GetDict(PyImport_AddModule("candidate"));
    if (PyDict_SetItemString(space, "__builtins__", builtins) < 0) return NULL;
    if (!executed(compile, PyDict_GetItemString(job, "code"), "<program>", space)) return NULL;
    if (PyObject_IsTrue(setup) && !executed(compile, setup, "<setup>", space)) return NULL;
    return space;
}

/* The functions that tests bind, by name; NULL, and the exception, where there is none. */
static Object *bound(const struct child *child, Object *bind, Object *space) {
    Object *name, *source, *function, *found = PyDict_New();
    ssize_t position = 0;
    while (found != NULL && PyDict_Next(bind, &position, &name, &source)) {
        function = PyDict_GetItem(space, source);
        if (function == NULL) return PyObject_CallFunction(child->bound, "OO", bind, space); /* Class().method, say */
        PyDict_SetItem(found, name, function);
    }
    return found;
}

/* ["c", name, args, kwargs, lazy] of a global or a bound function; any other call is child.py's. */
static void call(const struct child *child, Object *nonce, int index, Object *call, Object *space, Object *binding) {
    Object *function = NULL;
    if (PyList_Size(call) == 5) {
        function = PyDict_GetItem(binding, PyList_GetItem(call, 1));
        if (function == NULL) function = PyDict_GetItem(space, PyList_GetItem(call, 1));
    }
    if (function == NULL) {
        const char *format = "iOiOOO";
        handed_over(PyObject_CallFunction(child->answer, format, child->answers, nonce, index, call, space, binding));
        return;
    }
    Object *args = PyList_AsTuple(PyList_GetItem(call, 2)), *kwargs = PyList_GetItem(call, 3), *value = NULL;
    if (args != NULL) value = PyObject_Call(function, args, PyDict_Size(kwargs) > 0 ? kwargs : NULL);
    if (args != NULL) Py_DecRef(args);
    if (value == NULL) {
        raised(child, nonce, index);
        return;
    }
    Object *lazy = PyList_GetItem(call, 4);
    if (!answered(child, nonce, index, value))
        handed_over(PyObject_CallFunction(child->returned, "iOiOO", child->answers, nonce, index, value, lazy));
    Py_DecRef(value);
}

static int is(Object *job, const char *key, const char *mode) {
    return PyUnicode_CompareWithASCIIString(PyDict_GetItemString(job, key), mode) == 0;
}

static int is_true(Object *job, const char *key) { return PyObject_IsTrue(PyDict_GetItemString(job, key)); }

void plum_calls(const struct child *child, Object *job) {
    if (!is(job, "mode", "calls") || is_true(job, "serve") || is_true(job, "ends")) return;
    Object *nonce = PyDict_GetItemString(job, "n"), *calls = PyDict_GetItemString(job, "calls");
    Object *space = loaded(job), *binding = NULL;
    if (space != NULL) binding = bound(child, PyDict_GetItemString(job, "bind"), space);
    if (binding == NULL)
        raised(child, nonce, -1);
    else
        for (int i = 0; i < PyList_Size(calls); i++) call(child, nonce, i, PyList_GetItem(calls, i), space, binding);
    if (write(child->job, ".", 1) < 0) _exit(BROKEN);
    _exit(0);
}
