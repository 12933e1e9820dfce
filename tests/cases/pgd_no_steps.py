"""An attack of no step (steps=0) leaves each image as it is and looks like a network that nothing can break. Right: refused in
a sentence before the first image. Kind of report: fra31/auto-attack#44, bethgelab/foolbox#162."""

import kit


def check() -> str | None:
    kit.pairs("a")
    wrong = []
    for spec in (
        "pgd(budget='linf:8/255', steps=0)",
        "pgd(budget='linf:8/255', steps=-3)",
        "ifgsm(budget='linf:8/255', steps=0)",
        "apgd(budget='linf:8/255', steps=0)",
    ):
        ran = kit.inside(
            "evaluate", "--network", kit.tiny(), "--data", kit.folder(), "--perturbation", spec, "--out", "run"
        )
        wrong += [] if ran.refused else [f"{spec}: {ran.told()}"]
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "exit 2 and a sentence")
