"""A program as it would run on another day: what reads the clock then answers otherwise."""

from __future__ import annotations

_LATER = """
def _plum_later(shift=3456789.25):
    import datetime, random, time
    def shifted(read, by):
        return lambda *given: read(*given) + by
    for name in ("time", "monotonic", "perf_counter"):
        setattr(time, name, shifted(getattr(time, name), shift))
        setattr(time, name + "_ns", shifted(getattr(time, name + "_ns"), int(shift * 10**9)))
    def sooner(read):
        return lambda seconds=None: read(time.time() if seconds is None else seconds)
    for name in ("localtime", "gmtime", "ctime"):
        setattr(time, name, sooner(getattr(time, name)))
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(time.time(), tz)
        @classmethod
        def utcnow(cls):
            return cls.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)
        @classmethod
        def today(cls):
            return cls.now()
    class LaterDate(datetime.date):
        @classmethod
        def today(cls):
            return cls.fromtimestamp(time.time())
    datetime.datetime, datetime.date = Later, LaterDate
    random.seed(shift)
_plum_later()
del _plum_later
"""


def later(code: str) -> str:
    """``code`` 40 days later, with another state of ``random``; as it is where it mentions neither, or where nothing
    may stand before it."""
    clocked = any(word in code for word in ("time", "date", "random", "__import__", "import_module"))
    return code if not clocked or "__future__" in code else _LATER + code
