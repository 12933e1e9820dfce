"""`reproduce --device cuda:1` or `--device mps`: the networks of the study are trained first. Right: they train on the device
that was asked for, or it is refused; not on the first GPU, nor on the CPU. The check looks at what `Fabric` is asked for, as
no such device is needed then. Kind of report: mosaicml/composer#56."""

import kit


def check() -> str | None:
    import lightning_fabric

    asked: list[dict] = []

    class Asked:
        device = "?"

        def __init__(self, *words, **named):
            asked.append(named)

        def launch(self):
            return None

    try:
        import robustseg.training.fabric as module

        opened = module.fabric_on
    except (ImportError, AttributeError) as error:
        raise kit.Open(f"robustseg.training.fabric.fabric_on is gone: {error}") from error
    lightning_fabric.Fabric = Asked
    if hasattr(module, "Fabric"):
        module.Fabric = Asked
    wrong = []
    for device, fits in (
        ("cuda:1", lambda named: named.get("devices") in ([1], (1,), "1,")),
        ("mps", lambda named: named.get("accelerator") in ("mps", "gpu", "auto")),
    ):
        asked.clear()
        seen = kit.attempt(lambda device=device: opened(device, "32-true"))
        if seen.refused:
            continue
        if not asked:
            raise kit.Open(f"no Fabric is asked for ({seen.told()})")
        if not fits(asked[-1]):
            wrong.append(f"{device} asks for {asked[-1]}")
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "devices=[1] for cuda:1, accelerator mps for mps, or a refusal")
