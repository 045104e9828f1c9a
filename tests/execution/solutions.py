"""Solutions of ours for problems of CodeContests and LiveCodeBench, whose files hold tests alone."""

from __future__ import annotations

T_SHIRTS = """
from collections import Counter
n = int(input())
old = Counter(input() for _ in range(n))
new = Counter(input() for _ in range(n))
print(sum((old - new).values()))
"""

EDGY_TREES = """
import sys
def main():
    n, k, *rest = map(int, sys.stdin.read().split())
    root = list(range(n + 1))
    def find(x):
        while root[x] != x:
            root[x] = root[root[x]]
            x = root[x]
        return x
    for u, v, black in zip(*[iter(rest)] * 3):
        if not black:
            root[find(u)] = find(v)
    sizes = {}
    for x in range(1, n + 1):
        sizes[find(x)] = sizes.get(find(x), 0) + 1
    p = 10 ** 9 + 7
    print((pow(n, k, p) - sum(pow(s, k, p) for s in sizes.values())) % p)
main()
"""

MP3 = """
n, size = map(int, input().split())
counts = {}
for a in input().split():
    counts[int(a)] = counts.get(int(a), 0) + 1
kept = 1 << min(8 * size // n, 30)
prefix = [0]
for value in sorted(counts):
    prefix.append(prefix[-1] + counts[value])
if len(counts) <= kept:
    print(0)
else:
    print(n - max(prefix[i + kept] - prefix[i] for i in range(len(counts) - kept + 1)))
"""

KILL_THEM_ALL = """
import sys
lines = iter(sys.stdin)
for _ in range(int(next(lines))):
    n, r = map(int, next(lines).split())
    places = sorted(set(map(int, next(lines).split())), reverse=True)
    print(sum(p - i * r > 0 for i, p in enumerate(places)))
"""

CORRECT_SOLUTION = """
digits = sorted(input().strip())
i = next((i for i, d in enumerate(digits) if d != "0"), 0)
digits[0], digits[i] = digits[i], digits[0]
print("OK" if "".join(digits) == input().strip() else "WRONG_ANSWER")
"""

THREE_CARDS = """
import sys
for word in sys.stdin.read().split()[1:]:
    sys.stdout.write("YES\\n" if sum(a != b for a, b in zip(word, "abc")) <= 2 else "NO\\n")
"""

OVERALL_WINNER = """
n, games = int(input()), input()
t, a = games.count("T"), games.count("A")
print("T" if t > a or t == a and games[-1] == "A" else "A")
"""

SOLUTIONS = {
    "codecontests:3": T_SHIRTS,
    "codecontests:9": EDGY_TREES,
    "codecontests:12": MP3,
    "codecontests:14": KILL_THEM_ALL,
    "codecontests:17": CORRECT_SOLUTION,
    "livecodebench:1": THREE_CARDS,
    "livecodebench:191": OVERALL_WINNER,
}
