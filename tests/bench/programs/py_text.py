"""Strings, dictionaries, regular expressions and JSON."""
import json
import re

text = open("/usr/lib/python3.11/argparse.py").read()
words = {}
for _ in range(6):
    for word in re.findall(r"[A-Za-z_]\w*", text):
        words[word] = words.get(word, 0) + 1
rows = [{"word": w, "n": n, "parts": re.split(r"_|(?<=[a-z])(?=[A-Z])", w), "half": n / 2} for w, n in sorted(words.items())]
for _ in range(10):
    rows = json.loads(json.dumps(rows))
print(sum(len(r["parts"]) for r in rows), json.dumps(rows[:50]))
print(len(re.sub(r"(?m)^\s*#.*$|\"\"\"(?:.|\n)*?\"\"\"", "", text)))
