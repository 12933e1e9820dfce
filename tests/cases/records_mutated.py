"""A records.jsonl that another version wrote, an editor touched or a full disk cut: values of a wrong kind. Right: report and
compare read it or refuse in one sentence (exit 2), never with a traceback (exit 70). Kind of report: IBM/unitxt#7 (results
read back from files)."""

import copy
import json
from pathlib import Path

import kit

WRONG = (None, "x", -1, 10**30, [], {}, [1, 2, 3], True)


def check() -> str | None:
    kit.pairs()
    kit.evaluate(kit.tiny(), kit.folder(), folder="run")
    kit.evaluate(kit.tiny(), kit.folder(), "gaussian(rms='8/255')", folder="run")
    good = [json.loads(line) for line in Path("run/records.jsonl").read_text().splitlines()]
    Path("bad").mkdir()
    traces, tried = {}, 0
    for number, name in enumerate(good[-1]):
        inner = [(name, key) for key in good[-1][name]] if isinstance(good[-1][name], dict) else []
        for place in [(name,), *inner[:4]]:
            for value in (WRONG[(number + tried) % len(WRONG)], WRONG[(number + 3) % len(WRONG)]):
                lines = copy.deepcopy(good)
                here = lines[-1]
                for key in place[:-1]:
                    here = here[key]
                here[place[-1]] = value
                Path("bad/records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
                tried += 1
                for words in (("report", "bad", "--out", "bad/page.html"), ("compare", "run", "bad")):
                    ran = kit.inside(*words)
                    if ran.code == 70 or "Traceback" in ran.text:
                        traces.setdefault(
                            f"{words[0]} {'.'.join(place)}={value!r}: {ran.text.strip().splitlines()[-1]}", None
                        )
    return f"{len(traces)} tracebacks of {2 * tried}, for example {'; '.join(list(traces)[:2])}" if traces else None


if __name__ == "__main__":
    kit.run(check, "no traceback")
