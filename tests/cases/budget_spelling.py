"""One budget spelled three ways: 'linf:8/255', 'linf: 8/255' and 'linf:0.03137254901960784'. Right: one worst case over all
that was tried, and one key for the same attack, so that it is not run again (or the other spelling is refused).
Kind of report: IBM/unitxt#7 (keys of results)."""

import kit


def check() -> str | None:
    import robustseg as rs
    from robustseg.report import worst_cases
    from robustseg.results.record import read_records

    kit.pairs("a")
    spellings, wrong = ["linf:8/255"], []
    for other in ("linf: 8/255", "linf:0.03137254901960784"):
        seen = kit.attempt(lambda other=other: rs.perturbation(f"fgsm(budget='{other}')"))
        if seen.error is None:
            spellings.append(other)
        elif not seen.refused:
            wrong.append(seen.told())
    kit.evaluate(kit.tiny(), kit.folder(), folder="run")
    for attack in ("fgsm(budget='{}')", "pgd(budget='{}', steps=2)"):
        for budget in spellings:
            kit.evaluate(kit.tiny(), kit.folder(), attack.format(budget), folder="run")
    records = [r for r in read_records("run") if r.perturbation != "clean"]
    rows = worst_cases(read_records("run"))
    if len(records) != 2:
        wrong.append(
            f"{len(records)} records of 2 attacks ({', '.join(sorted({r.perturbation for r in records})[:3])})"
        )
    if len(rows) != 1:
        wrong.append(f"{len(rows)} rows of worst cases ({', '.join(str(r.budget) for r in rows)})")
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "2 records and 1 worst case")
