"""Operations on lists of words, and on the characters of one string."""

from __future__ import annotations

from plum_core.grammar.ops import filters, others

LETTERS, LENGTHS, COUNT = "abcdeilmnoprst", range(2, 7), range(2, 5)
VOWEL = "'aeiou'"

WORD_FILTERS = filters(
    "strs",
    (
        "longer",
        "len({e}) > {k}",
        "{n} longer than {k} characters | {n} with more than {k} letters",
        {"k": LENGTHS},
    ),
    (
        "shorter",
        "len({e}) < {k}",
        "{n} shorter than {k} characters | {n} with fewer than {k} letters",
        {"k": range(4, 8)},
    ),
    ("length", "len({e}) == {k}", "{n} of length {k} | {n} with exactly {k} letters", {"k": range(3, 7)}),
    ("even_length", "len({e}) % 2 == 0", "{n} of even length"),
    ("vowel_start", f"{{e}}[0] in {VOWEL}", "{n} that start with a vowel | {n} beginning with a vowel"),
    ("vowel_end", f"{{e}}[-1] in {VOWEL}", "{n} that end with a vowel | {n} ending in a vowel"),
    (
        "starts",
        "{e}.startswith('{c}')",
        "{n} that start with '{c}' | {n} beginning with '{c}'",
        {"c": LETTERS},
    ),
    ("ends", "{e}.endswith('{c}')", "{n} that end with '{c}' | {n} ending in '{c}'", {"c": LETTERS}),
    ("has", "'{c}' in {e}", "{n} containing '{c}' | {n} with the letter '{c}'", {"c": LETTERS}),
    ("lacks", "'{c}' not in {e}", "{n} without the letter '{c}' | {n} not containing '{c}'", {"c": LETTERS}),
    ("mirror", "{e} == {e}[::-1]", "palindromes | {n} that read the same backwards"),
    ("same_ends", "{e}[0] == {e}[-1]", "{n} that start and end with the same letter"),
    ("before", "{e} < '{c}'", "{n} that come before '{c}' in the alphabet", {"c": "ghmnpt"}),
    ("not_word", "{e} != '{s}'", "{n} other than '{s}'", {"s": ("cat", "tree", "level", "moon")}),
)

WORD_MAPS = others(
    "map",
    "strs",
    "strs",
    (
        "upper",
        "{e}.upper()",
        "{x} in upper case | {x} in capitals",
        "put each in upper case | capitalise every letter",
    ),
    (
        "title",
        "{e}.capitalize()",
        "{x} with the first letter capitalised | {x} capitalised",
        "capitalise each of them",
    ),
    (
        "flip",
        "{e}[::-1]",
        "{x} spelled backwards | {x} with each one reversed",
        "spell each backwards | reverse each one",
    ),
    ("twice", "{e} * 2", "{x} repeated twice each | {x} each written twice", "write each of them twice"),
    (
        "prefix",
        "{e}[:{k}]",
        "the first {k} letters of {x}",
        "keep the first {k} letters of each",
        {"k": range(2, 4)},
    ),
    ("head", "{e}[0]", "the first letters of {x} | the initials of {x}", "keep each first letter"),
    ("tail", "{e}[-1]", "the last letters of {x}", "keep each last letter"),
    ("beheaded", "{e}[1:]", "{x} without their first letter", "drop each first letter"),
    (
        "suffix",
        "{e} + '{s}'",
        "{x} followed by '{s}' | {x} with '{s}' appended",
        "append '{s}' to each",
        {"s": ("!", "?", "s", "ing")},
    ),
    (
        "prepend",
        "'{s}' + {e}",
        "{x} preceded by '{s}'",
        "put '{s}' before each",
        {"s": ("re", "un", "#", "@")},
    ),
    (
        "swap",
        "{e}.replace('{c}', '{d}')",
        "{x} with '{c}' replaced by '{d}'",
        "replace '{c}' by '{d}' in each",
        {"c": "aeio", "d": "*_uy"},
    ),
    ("letters", "''.join(sorted({e}))", "{x} with their letters sorted", "sort the letters of each"),
    (
        "consonants",
        f"''.join(c for c in {{e}} if c not in {VOWEL})",
        "{x} without vowels",
        "remove the vowels of each",
    ),
) + others(
    "map",
    "strs",
    "ints",
    (
        "len",
        "len({e})",
        "the lengths of {x} | the letter counts of {x}",
        "take each length | replace each by its length",
    ),
    ("vowels", f"sum(c in {VOWEL} for c in {{e}})", "the vowel counts of {x}", "count the vowels of each"),
    (
        "variety",
        "len(set({e}))",
        "the numbers of distinct letters of {x}",
        "count the distinct letters of each",
    ),
    (
        "occurs",
        "{e}.count('{c}')",
        "the numbers of '{c}' in each of {x}",
        "count the '{c}' in each",
        {"c": LETTERS},
    ),
)

WORD_STEPS = others(
    "step",
    "strs",
    "strs",
    ("sort", "sorted({x})", "{x} in alphabetical order | {x} sorted", "sort them | sort them alphabetically"),
    (
        "sort_down",
        "sorted({x}, reverse=True)",
        "{x} in reverse alphabetical order",
        "sort them in reverse alphabetical order",
    ),
    (
        "by_length",
        "sorted({x}, key=len)",
        "{x} sorted by length | {x} from shortest to longest",
        "sort them by length",
    ),
    (
        "by_last",
        "sorted({x}, key=lambda w: w[-1])",
        "{x} sorted by their last letter",
        "sort them by their last letter",
    ),
    ("reverse", "{x}[::-1]", "{x} in reverse order", "reverse the order"),
    (
        "distinct",
        "list(dict.fromkeys({x}))",
        "{x} without duplicates | the distinct {n} of {x}",
        "remove duplicates",
    ),
    ("first_k", "{x}[:{k}]", "the first {k} of {x}", "take the first {k}", {"k": COUNT}),
    ("last_k", "{x}[-{k}:]", "the last {k} of {x}", "take the last {k}", {"k": COUNT}),
    ("drop_first", "{x}[1:]", "{x} without the first one | all but the first of {x}", "skip the first one"),
    ("every_other", "{x}[::2]", "every second one of {x}", "take every second one"),
    (
        "longest_k",
        "sorted({x}, key=len, reverse=True)[:{k}]",
        "the {k} longest of {x}",
        "take the {k} longest",
        {"k": COUNT},
    ),
    (
        "numbered",
        "[str(i) + w for i, w in enumerate({x})]",
        "{x} with their position in front",
        "put each position in front",
    ),
)

WORD_REDUCERS = (
    others(
        "reduce",
        "strs",
        "int",
        ("count", "len({x})", "the number of {x} | how many {x} there are", "", {}, ("0", "out += 1", "out")),
        (
            "letters_in",
            "sum(len(w) for w in {x})",
            "the total length of {x} | the number of letters in all of {x}",
        ),
        ("longest_len", "max(map(len, {x}), default=0)", "the length of the longest of {x} (0 if none)"),
        ("distinct_count", "len(set({x}))", "the number of distinct {x} | how many different {x} there are"),
    )
    + others(
        "reduce",
        "strs",
        "str",
        (
            "join",
            "'{j}'.join({x})",
            "{x} joined with '{j}' | a string of {x} separated by '{j}'",
            "",
            {"j": ("-", " ", "", ", ", "/")},
        ),
        (
            "longest",
            "max({x}, key=len, default='')",
            "the longest of {x} ('' if none) | the longest of {x}, or '' if there is none",
        ),
        ("shortest", "min({x}, key=len, default='')", "the shortest of {x} ('' if none)"),
        ("first", "{x}[0] if {x} else ''", "the first of {x}, or '' if there is none"),
        ("last", "{x}[-1] if {x} else ''", "the last of {x}, or '' if there is none"),
        ("earliest", "min({x}, default='')", "the alphabetically first of {x} ('' if none)"),
        ("initials", "''.join(w[0] for w in {x} if w)", "the initials of {x} as one string"),
    )
    + others(
        "reduce",
        "strs",
        "bool",
        (
            "contains",
            "'{s}' in {x}",
            "'{s}' is among {x} | '{s}' occurs in {x}",
            "",
            {"s": ("cat", "tree", "level", "moon")},
        ),
        ("all_distinct", "len({x}) == len(set({x}))", "{x} are all different"),
        ("sorted", "{x} == sorted({x})", "{x} are in alphabetical order"),
        (
            "any_long",
            "any(len(w) > {k} for w in {x})",
            "any of {x} is longer than {k}",
            "",
            {"k": range(3, 8)},
        ),
        (
            "all_long",
            "all(len(w) > {k} for w in {x})",
            "all of {x} are longer than {k}",
            "",
            {"k": range(1, 5)},
        ),
        ("any_has", "any('{c}' in w for w in {x})", "any of {x} contains '{c}'", "", {"c": LETTERS}),
    )
    + others(
        "reduce",
        "strs",
        "dict[str, int]",
        (
            "lengths",
            "{{w: len(w) for w in {x}}}",
            "a dictionary from each of {x} to its length | the lengths of {x} as a dictionary",
        ),
        (
            "counts",
            "{{w: {x}.count(w) for w in {x}}}",
            "a dictionary of how often each of {x} occurs | the counts of {x} as a dictionary",
        ),
        (
            "places",
            "{{w: i for i, w in enumerate({x})}}",
            "a dictionary from each of {x} to its last position",
        ),
    )
    + others("reduce", "strs", "list[str]", ("list", "{x}", "{x} | the list of {x}"))
)

CHAR_FILTERS = filters(
    "chars",
    ("vowels", f"{{e}} in {VOWEL}", "vowels | {n} that are vowels"),
    ("no_vowels", f"{{e}} not in {VOWEL}", "{n} that are not vowels"),
    ("alpha", "{e}.isalpha()", "letters | {n} that are letters"),
    ("digit", "{e}.isdigit()", "digits | {n} that are digits"),
    ("no_digit", "not {e}.isdigit()", "{n} that are not digits"),
    ("upper", "{e}.isupper()", "upper case letters | capital letters"),
    ("lower", "{e}.islower()", "lower case letters | small letters"),
    ("solid", "{e} != ' '", "{n} other than spaces | {n} that are not spaces"),
    ("not_char", "{e} != '{c}'", "{n} other than '{c}' | {n} different from '{c}'", {"c": LETTERS}),
    ("after", "{e} > '{c}'", "{n} that come after '{c}'", {"c": "dfhkmp"}),
)

CHAR_STEPS = others(
    "step",
    "chars",
    "chars",
    ("upper", "{x}.upper()", "{x} in upper case | {x} in capitals", "put them in upper case"),
    ("lower", "{x}.lower()", "{x} in lower case", "put them in lower case"),
    ("swapcase", "{x}.swapcase()", "{x} with upper and lower case swapped", "swap upper and lower case"),
    ("reverse", "{x}[::-1]", "{x} backwards | {x} in reverse order", "reverse them"),
    ("sort", "''.join(sorted({x}))", "{x} in sorted order", "sort them"),
    ("distinct", "''.join(dict.fromkeys({x}))", "{x} without duplicates", "remove duplicates"),
    ("first_k", "{x}[:{k}]", "the first {k} of {x}", "take the first {k}", {"k": range(2, 6)}),
    ("last_k", "{x}[-{k}:]", "the last {k} of {x}", "take the last {k}", {"k": range(2, 6)}),
    ("drop_k", "{x}[{k}:]", "{x} without the first {k}", "skip the first {k}", {"k": range(1, 4)}),
    ("every_other", "{x}[::2]", "every second one of {x}", "take every second one"),
    (
        "swap",
        "{x}.replace('{c}', '{d}')",
        "{x} with '{c}' replaced by '{d}'",
        "replace '{c}' by '{d}'",
        {"c": "aeio", "d": "*_uy"},
    ),
    ("double", "''.join(c * 2 for c in {x})", "{x} with each one doubled", "double each of them"),
    (
        "shift",
        "''.join(chr(ord(c) + 1) for c in {x})",
        "{x} each moved on by one in the alphabet",
        "replace each by the next in the alphabet",
    ),
)

CHAR_REDUCERS = (
    others(
        "reduce",
        "chars",
        "int",
        ("count", "len({x})", "the number of {x} | how many {x} there are", "", {}, ("0", "out += 1", "out")),
        (
            "count_of",
            "{x}.count('{c}')",
            "the number of '{c}' in {x} | how often '{c}' occurs in {x}",
            "",
            {"c": LETTERS},
        ),
        ("distinct_count", "len(set({x}))", "the number of distinct {x} | how many different {x} there are"),
        (
            "find",
            "{x}.find('{c}')",
            "the position of the first '{c}' in {x}, or -1 if there is none",
            "",
            {"c": LETTERS},
        ),
    )
    + others(
        "reduce",
        "chars",
        "bool",
        ("mirror", "{x} == {x}[::-1]", "{x} read the same backwards | {x} form a palindrome"),
        ("all_distinct", "len({x}) == len(set({x}))", "{x} are all different"),
        ("contains", "'{c}' in {x}", "'{c}' is among {x} | '{c}' occurs in {x}", "", {"c": LETTERS}),
    )
    + others(
        "reduce",
        "chars",
        "str",
        ("string", "{x}", "{x} as a string | the string of {x}"),
        ("mode", "max({x}, key={x}.count, default='')", "the most common of {x} ('' if none)"),
        ("join", "'{j}'.join({x})", "{x} joined with '{j}'", "", {"j": ("-", " ", ".")}),
    )
    + others("reduce", "chars", "list[str]", ("list", "list({x})", "a list of {x}"))
    + others(
        "reduce",
        "chars",
        "dict[str, int]",
        (
            "counts",
            "{{c: {x}.count(c) for c in {x}}}",
            "a dictionary of how often each of {x} occurs | the counts of {x} as a dictionary",
        ),
    )
)

OPS = WORD_FILTERS + WORD_MAPS + WORD_STEPS + WORD_REDUCERS + CHAR_FILTERS + CHAR_STEPS + CHAR_REDUCERS
